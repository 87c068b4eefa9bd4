"""A run folder that is taken away from under a job: the driver says so, and nothing is made in its place."""

import subprocess

import pytest

from sft.run_folder import RunFolder
from tests.cluster.conftest import WriteConfig
from tests.cluster.running import SFT, started, wait_for_step


@pytest.mark.long
def test_a_job_whose_run_folder_is_moved_away_ends_in_words(write_config: WriteConfig) -> None:
    config = write_config("moved")
    run = RunFolder(config.with_suffix(""))
    with started([*SFT, "train", str(config), "cluster.workers=1"], subprocess.PIPE) as driver:
        try:
            wait_for_step(run, attempt=1, step=2, process=driver)
            run.path.rename(run.path.with_name("elsewhere"))
            said, _ = driver.communicate(timeout=180)
        finally:
            driver.kill()
    words = " ".join(said.split())
    assert f"The training cannot go on: the run folder {run.path} is gone" in words, said
    assert driver.returncode == 1
    assert "Traceback" not in said
    assert not run.path.exists(), "nothing was made in its place"
