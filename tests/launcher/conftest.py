"""A run to talk to, made once for all files that do; and what speaks to Ray is a fork of the warm process."""

from pathlib import Path

import pytest

from sft.run_folder import RunFolder
from tests.forked_ranks import warm_command
from tests.launcher.talked_run import make_run


@pytest.fixture(scope="session")
def talked_run(tmp_path_factory: pytest.TempPathFactory, tiny_model_dir: Path) -> RunFolder:
    return make_run(tmp_path_factory.mktemp("talked"), tiny_model_dir)


@pytest.fixture(autouse=True)
def _warm_trainer(monkeypatch: pytest.MonkeyPatch) -> None:
    """It imports for seconds before it reads a request, of which there are few here, or is ended."""
    monkeypatch.setattr("launcher.cluster.ray_process.own_module", warm_command)
