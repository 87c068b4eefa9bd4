"""A run to talk to, made once for all files that do."""

from pathlib import Path

import pytest

from sft.run_folder import RunFolder
from tests.launcher.talked_run import make_run


@pytest.fixture(scope="session")
def talked_run(tmp_path_factory: pytest.TempPathFactory, tiny_model_dir: Path) -> RunFolder:
    return make_run(tmp_path_factory.mktemp("talked"), tiny_model_dir)
