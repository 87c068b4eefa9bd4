"""Killed between any two requests to S3, the next attempt goes on from a whole checkpoint and saves the same step."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.checkpoint.killed_uploads import MOVES, NUMEL, SAVES
from tests.checkpoint.ranks import resumed_step, save_steps
from tests.checkpoint.storages import StoredBytes
from tests.forked_ranks import warm_command
from tests.s3_server import S3Server

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def killed(s3_server: S3Server) -> str:
    url, root = s3_server.url("killed"), Path(__file__).resolve().parents[2]
    command = warm_command("tests.checkpoint.killed_uploads", url)
    environment = {**os.environ, **s3_server.environment, "OMP_NUM_THREADS": "1"}
    subprocess.run(command, cwd=root, env=environment, check=True, timeout=120)
    return url


@pytest.mark.parametrize("moment", SAVES)
def test_the_next_attempt_goes_on_and_saves_the_same_step(in_s3: StoredBytes, killed: str, moment: str) -> None:
    stored = StoredBytes(f"{killed}/{moment}")
    *_, last = SAVES[moment]
    assert resumed_step(stored.storage, 2, NUMEL.get(moment, 37)) == (last, []), "nothing is damaged"
    save_steps(stored.storage, 1, 2, 3, attempt=2)
    assert stored.storage.steps()[-2:] == [2, 3]
    left = stored.files.find(stored.root)
    assert left == [path for step in stored.storage.steps() for path in stored.files_of(step)]
    assert {path.split("attempt-")[1][:4] for path in stored.shards_of(3)} == {"0002"}
    assert len(stored.shards_of(2)) == 1, "what the killed one left is gone"
    assert resumed_step(stored.storage, 3) == (3, [])


@pytest.mark.parametrize("moment", MOVES)
def test_a_damaged_one_is_kept_whole_and_never_in_the_way(in_s3: StoredBytes, killed: str, moment: str) -> None:
    stored = StoredBytes(f"{killed}/{moment}")
    assert resumed_step(stored.storage, 2)[0] == 1
    save_steps(stored.storage, 2, 2, attempt=2)
    assert resumed_step(stored.storage, 2) == (2, [])
    names = [path.rpartition("/")[2] for path in stored.storage.damaged()]
    kept = stored.files.find(f"{stored.root}/{names[-1]}")
    assert sorted(os.path.splitext(path)[1] for path in kept) == [".json", ".receipt", ".safetensors"]
