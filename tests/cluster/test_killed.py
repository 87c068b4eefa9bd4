"""Real Ray, real signals: a worker is killed, then the driver, then the job is asked to stop, and in the end its output
cannot be written; what comes out is what an undisturbed run gives, to the bit.

The undisturbed run is started with plain torchrun, so that the two ways to start a job are held against each other.
"""

import json
import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from launcher.cli import main
from sft.atomic_files import hash_file
from sft.checkpoint.local_storage import published_steps
from sft.run_folder import RunFolder
from tests.cluster.conftest import NUM_STEPS, WriteConfig
from tests.cluster.running import (
    SFT,
    TORCHRUN,
    environment,
    is_alive,
    losses,
    metrics,
    pid_of,
    run_to_end,
    started,
    wait_for_step,
    wait_until,
)


@pytest.mark.long
def test_killed_and_stopped_equals_never_disturbed(write_config: WriteConfig) -> None:
    straight, killed = write_config("straight"), write_config("killed")
    assert main(["prepare", str(straight)]) == 0
    run_to_end([*TORCHRUN, "-m", "sft.training", str(straight)])
    run, expected = RunFolder(killed.with_suffix("")), RunFolder(straight.with_suffix(""))

    with started([*SFT, "train", str(killed)]) as driver:
        wait_for_step(run, attempt=1, step=6, process=driver)
        os.kill(pid_of(run, attempt=1, rank=1), signal.SIGKILL)
        wait_for_step(run, attempt=2, step=14, process=driver)
        workers = [pid_of(run, attempt=2, rank=rank) for rank in (0, 1)]
        driver.kill()
        driver.wait(30)
        wait_until(lambda: not any(is_alive(pid) for pid in workers), 60, "the workers outlive their driver")
    last_line = metrics(run, "words")[-1]
    assert last_line["step"] < NUM_STEPS["words"] - 1, "the run was over before the driver was killed"
    assert not run.stage(1, "words").complete.exists()
    resumed_from = newest_checkpoint(run)
    assert "rank 1" in status(run)["restarts"][0]["why"]

    with started([*SFT, "train", str(killed)]) as driver:
        wait_for_step(run, attempt=3, step=resumed_from + 6, process=driver)
        running = status(run)
        assert (running["state"], running["attempt"], running["num_ranks"]) == ("running", 3, 2)
        assert running["stages"][1]["num_done"] > resumed_from
        assert_ray_listens_on_loopback_only(driver.pid)
        os.killpg(driver.pid, signal.SIGINT)  # Ctrl-C, as a terminal sends it: to all processes of the job
        assert driver.wait(60) == 3, "stopped on request, with a checkpoint"
    assert run.report.is_file(), "a stop that is obeyed ends nothing else"
    assert not run.stop_file.exists()
    stopped_at = newest_checkpoint(run)
    assert stopped_at == metrics(run, "words")[-1]["step"] + 1, "the checkpoint is of the last step"
    assert stopped_at < NUM_STEPS["words"]
    stopped = status(run)
    assert (stopped["state"], stopped["checkpoint"]["step"]) == ("stopped", stopped_at)

    with Path("/dev/full").open("w") as log:  # a full disk below the driver's log
        command = [*SFT, "train", str(killed)]
        done = subprocess.run(
            command, stdout=log, stderr=subprocess.PIPE, text=True, timeout=200, env=environment(), check=False
        )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("standard output cannot be written: No space left on device") == 1
    assert "Traceback" not in done.stderr

    for stage in NUM_STEPS:
        assert losses(run, stage, NUM_STEPS[stage]) == losses(expected, stage, NUM_STEPS[stage])
    steps = {n: [line["step"] for line in metrics(run, "words") if line["attempt"] == n] for n in (3, 4)}
    assert steps[3] == list(range(resumed_from, stopped_at)), "the exact next step"
    assert steps[4] == list(range(stopped_at, NUM_STEPS["words"])), "the exact next step"
    assert {line["attempt"] for line in metrics(run, "broad")} == {1}, "a finished stage ran again"
    for index, stage in enumerate(NUM_STEPS):
        folders = [r.stage(index, stage).model for r in (run, expected)]
        found, wanted = (hash_file(folder / "model.safetensors") for folder in folders)
        assert found == wanted
        names = [f"{index}-{stage}.json" for _ in folders]
        assert (run.evaluations / names[0]).read_text() == (expected.evaluations / names[1]).read_text()
    assert run.report.is_file()
    assert status(run)["state"] == "finished"


def status(run: RunFolder) -> dict[str, Any]:
    command = [*SFT, "status", str(run.path), "--json"]
    text = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment(), check=True).stdout
    content: dict[str, Any] = json.loads(text)
    return content


def assert_ray_listens_on_loopback_only(driver: int) -> None:
    listening: set[tuple[str, str]] = set()
    for process in psutil.Process(driver).children(recursive=True):
        with suppress(psutil.Error):
            if "RayTrainWorker" not in process.name():  # torch's rendezvous listens on all addresses
                sockets = process.net_connections(kind="inet")
                listening |= {(process.name(), s.laddr.ip) for s in sockets if s.status == psutil.CONN_LISTEN}
    assert {name for name, _ in listening} >= {"gcs_server", "raylet"}
    assert {address for _, address in listening} <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}, listening


def newest_checkpoint(run: RunFolder) -> int:
    return max(published_steps(run.stage(1, "words").checkpoints))
