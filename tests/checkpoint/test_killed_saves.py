"""Killed at any moment of a save, the next attempt goes on from a whole checkpoint and saves the same step."""

import subprocess
from pathlib import Path

import pytest

from sft.checkpoint.local_storage import LocalStorage, published_steps
from tests.checkpoint.killed_saves import MOMENTS
from tests.checkpoint.ranks import names, resumed_step, save_steps
from tests.forked_ranks import warm_command


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("killed")
    root = Path(__file__).resolve().parents[2]
    command = warm_command("tests.checkpoint.killed_saves", str(folder))
    subprocess.run(command, cwd=root, check=True, timeout=120)
    return folder


@pytest.mark.parametrize("moment", MOMENTS)
def test_the_next_attempt_goes_on_and_saves_the_same_step(killed: Path, moment: str) -> None:
    storage = LocalStorage(killed / moment)
    assert resumed_step(storage, 2) == (MOMENTS[moment], []), "nothing is damaged"
    save_steps(storage, 2, 2, 3, attempt=2)
    assert published_steps(killed / moment)[-2:] == [2, 3]
    assert not [name for name in names(killed / moment) if name.startswith(".")], "what the killed one left is gone"
    assert resumed_step(storage, 3) == (3, [])
