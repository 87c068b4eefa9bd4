"""A driver is suspended while its rank trains on, and a job on another node takes over: never do both train."""

import json
import os
import signal

import psutil
import pytest

from sft.run_folder import RunFolder
from tests.cluster.conftest import WriteConfig
from tests.cluster.running import SFT, is_alive, pid_of, started, wait_for_step, wait_until


@pytest.mark.long
def test_the_rank_of_a_driver_that_is_suspended_ends_when_the_lock_is_anothers(write_config: WriteConfig) -> None:
    config = write_config("taken")
    run = RunFolder(config.with_suffix(""))
    command = [*SFT, "train", str(config), "cluster.workers=1", "stages.words.budget.steps=5000"]
    with started(command) as driver:
        try:
            wait_for_step(run, attempt=1, step=2, process=driver)
            rank = pid_of(run, 1, 0)
            os.kill(driver.pid, signal.SIGSTOP)
            # As who takes over a lock that was not renewed for so long.
            other = {**json.loads(run.lock.read_text()), "node": "another", "pid": 7, "nonce": "another"}
            run.lock.write_text(json.dumps(other))
            wait_until(lambda: not is_alive(rank), 60, "the rank trains on")
            (trainer,) = psutil.Process(driver.pid).children()
            wait_until(lambda: trainer.status() == psutil.STATUS_ZOMBIE, 60, "who speaks to Ray is there")
            assert run.latest_attempt() == 1
            os.kill(driver.pid, signal.SIGCONT)
            assert driver.wait(60) == 1
        finally:
            driver.kill()
    assert json.loads(run.lock.read_text()) == other
    assert not run.attempt(1).events("driver").exists(), "nothing is written of what is another's now"
