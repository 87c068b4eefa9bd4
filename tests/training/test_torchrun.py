"""The job under plain torchrun: real ranks that share the run folder's lock with every other way to start a job."""

import json
import os
import signal
import socket
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest
import yaml

from launcher.cli import main
from sft.attempt_record import write_began
from sft.job_config import load_job
from sft.monitoring.run_status import RunWatcher
from sft.run_events import EventLog
from sft.run_folder import RunFolder
from sft.run_lock import run_lock
from sft.training.workload import prepare_workload
from tests.cluster.running import ROOT, TORCHRUN, environment, is_alive, pid_of, started, wait_for_step
from tests.conftest import SmallRecords
from tests.forked_ranks import warm_command
from tests.jobs import two_stage_job
from tests.sinks.runs import train
from tests.webhook import webhook


@pytest.fixture
def config(tiny_model_dir: Path, small_records: SmallRecords, tmp_path: Path) -> Path:
    """A job that takes longer than the test."""
    path = tmp_path / "job.yaml"
    content = two_stage_job("job", tmp_path, tiny_model_dir, small_records, {"broad": 2, "words": 1500})
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.fixture
def run(config: Path) -> RunFolder:
    return RunFolder(config.with_suffix(""))


def two_ranks(config: Path) -> tuple[list[int], list[str]]:
    """Both ranks of a group of two: their exit codes, and each one's stderr."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    group = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    ranks = [
        subprocess.Popen(
            warm_command("sft.training", str(config)),
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=environment() | group | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(2)
    ]
    try:
        said = [rank.communicate(timeout=120)[1] for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    return [rank.returncode for rank in ranks], said


def test_a_folder_in_use_is_refused_on_all_ranks_with_one_message(config: Path, run: RunFolder) -> None:
    with run_lock(run.lock, on_lost=pytest.fail):
        codes, said = two_ranks(config)
    assert codes == [2, 2]
    (message,) = [line for text in said for line in text.splitlines() if "Traceback" in line or "in use" in line]
    assert f"{run.path} is in use by another job: process {os.getpid()} on " in message
    assert list(run.path.iterdir()) == [], "nothing was written beside the lock"


def test_ranks_do_not_prepare_while_others_wait(config: Path) -> None:
    codes, said = two_ranks(config)
    assert codes == [2, 2]
    assert "".join(said).count("Run `sft prepare` first") == 1
    assert "Traceback" not in "".join(said)


@pytest.mark.long
def test_restarts_that_could_hang_are_refused_before_anything_is_trained(config: Path, run: RunFolder) -> None:
    command = [*TORCHRUN[:-1], "1", "--max-restarts", "1", "-m", "sft.training", str(config)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=ROOT, env=environment())
    assert done.returncode == 1, "torchrun's own"
    # As often as torchrun starts them.
    assert done.stderr.count("Set TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 in torchrun's environment") == 2
    assert not run.path.exists()


@pytest.mark.long
def test_the_lock_is_held_goes_on_to_the_next_group_and_ends_the_job_when_it_is_lost(
    config: Path, run: RunFolder, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TORCH_DISABLE_SHARE_RDZV_TCP_STORE", "1")
    prepare_workload(load_job(config).sft)
    with started([*TORCHRUN, "--max-restarts", "1", "-m", "sft.training", str(config)]) as job:
        try:
            wait_for_step(run, 1, 2, job)
            assert main(["train", str(config)]) == 2
            first = pid_of(run, attempt=1, rank=0)
            assert f"in use by another job: process {first} on " in capfd.readouterr().err

            os.kill(first, signal.SIGKILL)
            wait_for_step(run, 2, 2, job)
            held = json.loads(run.lock.read_text())
            assert held["pid"] == pid_of(run, attempt=2, rank=0)

            other = json.dumps({**held, "node": "far-away", "machine": "another", "nonce": "foreign"})
            aside = run.path / "aside"
            aside.write_text(other)
            aside.replace(run.lock)
            assert job.wait(90) == 1
            assert run.lock.read_text() == other
            assert not any(is_alive(pid_of(run, attempt=2, rank=rank)) for rank in range(2))
            assert not run.attempt(3).path.exists()
        finally:
            end_all(run, job)


FAILS_WITH_NCCL = """
import sys, time
import torch.distributed as dist
import sft.training.__main__ as job

def fail(*arguments):
    raise RuntimeError("a step has failed")

def wait_for_kernels():
    time.sleep(600)  # as NCCL does, where a peer never comes

job.run_watched, dist.destroy_process_group = fail, wait_for_kernels
job._run_and_exit(sys.argv[1:])
"""


def test_a_rank_that_fails_does_not_wait_for_its_group_and_all_that_happened_is_posted_once(
    config: Path, run: RunFolder, tmp_path: Path
) -> None:
    script = tmp_path / "fails_with_nccl.py"
    script.write_text(FAILS_WITH_NCCL)
    prepare_workload(load_job(config).sft)
    # As if torchrun had started ranks before, which have trained a step, whose metrics the first rank sends.
    train(run, "broad", range(1))
    before = run.attempt(1)
    before.path.mkdir(parents=True)
    write_began(before, 1)
    EventLog(before, 0).add("failed", "step 1: ValueError: no", of="program", follows=False)
    command = warm_command(str(script), str(config), "alerts.url=$WEBHOOK", "logging.tensorboard=true")
    with webhook() as hook:
        variables = environment() | {"WEBHOOK": hook.url, "TORCHELASTIC_RESTART_COUNT": "1"}
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=ROOT, env=variables)
    assert done.returncode == 1
    assert done.stderr.count("RuntimeError: a step has failed") == 1, done.stderr
    assert [alert["text"] for alert in hook.alerts] == [
        "job: restarted: attempt 1 ended: rank 0, step 1: ValueError: no",
        "job: failed: RuntimeError: a step has failed",
    ]
    assert [restart.why for restart in RunWatcher(run).read().restarts] == ["rank 0, step 1: ValueError: no"]
    assert json.loads(run.sink_state("tensorboard").read_text())["state"]["stages"]["broad"]["step"] == 0


def end_all(run: RunFolder, job: "subprocess.Popen[bytes]") -> None:
    """torchrun, and its ranks, which would outlive it."""
    job.kill()
    for path in run.attempts.glob("*/rank-?????.json"):
        with suppress(ProcessLookupError):
            os.kill(int(json.loads(path.read_text())["pid"]), signal.SIGKILL)
