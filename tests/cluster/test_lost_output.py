"""What `sft train` does when its output is taken away from under it: see also tests/test_guarded_output.py."""

import subprocess
from pathlib import Path

import pytest

from sft.run_folder import RunFolder
from tests.cluster.conftest import WriteConfig
from tests.cluster.running import ROOT, SFT, STAGES, environment, started


@pytest.mark.long
def test_a_training_goes_on_with_a_full_disk_below_its_log(write_config: WriteConfig) -> None:
    config = write_config("full-log")
    with Path("/dev/full").open("w") as log:
        done = subprocess.run(
            [*SFT, "train", str(config)], stdout=log, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=environment()
        )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("standard output cannot be written: No space left on device") == 1
    assert "Traceback" not in done.stderr
    assert RunFolder(config.with_suffix("")).has_finished(STAGES)


@pytest.mark.long
def test_a_training_that_nobody_watches_any_more_stops_with_a_checkpoint(write_config: WriteConfig) -> None:
    config = write_config("unread")
    run = RunFolder(config.with_suffix(""))
    with started([*SFT, "train", str(config)], subprocess.PIPE) as driver:
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
