"""What `sft train` does when nobody reads its output any more; test_killed.py has a full disk below its log.

See also tests/test_guarded_output.py.
"""

import subprocess

import pytest

from sft.run_folder import RunFolder
from tests.cluster.conftest import WriteConfig
from tests.cluster.running import SFT, STAGES, started


@pytest.mark.long
def test_a_training_that_nobody_watches_any_more_stops_with_a_checkpoint(write_config: WriteConfig) -> None:
    config = write_config("unread")
    run = RunFolder(config.with_suffix(""))
    with started([*SFT, "train", str(config), "cluster.workers=1"], subprocess.PIPE) as driver:
        try:
            assert driver.stdout is not None
            while not driver.stdout.readline().startswith("Training with"):
                assert driver.poll() is None
            driver.stdout.close()
            assert driver.wait(180) == 3
        finally:
            driver.kill()
    assert not run.has_finished(STAGES)
    assert not run.stop_file.exists(), "it is obeyed"
    assert any(folder.checkpoints.is_dir() for folder in run.stage_folders())
