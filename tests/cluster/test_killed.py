"""Real Ray, real signals: a worker is killed, then the driver, then the job is asked to stop; what comes out in the end
is what an undisturbed run gives, to the bit.

The undisturbed run is started with plain torchrun, so that the two ways to start a job are held against each other.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sft.atomic_files import hash_file
from sft.checkpoint.local_place import published_steps
from sft.run_folder import RunFolder
from tests.cluster.conftest import NUM_STEPS, WriteConfig

ROOT = Path(__file__).parents[2]
SFT = [sys.executable, "-m", "launcher"]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


def test_killed_and_stopped_equals_never_disturbed(write_config: WriteConfig) -> None:
    straight, killed = write_config("straight"), write_config("killed")
    run_to_end([*SFT, "prepare", str(straight)])
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

    with started([*SFT, "train", str(killed)]) as driver:
        wait_for_step(run, attempt=3, step=resumed_from + 6, process=driver)
        os.killpg(driver.pid, signal.SIGINT)  # Ctrl-C, as a terminal sends it: to all processes of the job
        assert driver.wait(60) == 3, "stopped on request, with a checkpoint"
    stopped_at = newest_checkpoint(run)
    assert stopped_at == metrics(run, "words")[-1]["step"] + 1, "the checkpoint is of the last step"
    assert stopped_at < NUM_STEPS["words"]

    run_to_end([*SFT, "train", str(killed)])

    for stage in NUM_STEPS:
        assert losses(run, stage) == losses(expected, stage)
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


def newest_checkpoint(run: RunFolder) -> int:
    return max(published_steps(run.stage(1, "words").checkpoints))


def run_to_end(command: list[str]) -> None:
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=200, cwd=ROOT, env=environment(), check=False
    )
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"


def started(command: list[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=ROOT,
        env=environment(),
        start_new_session=True,
    )


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)} | {"RAY_ADDRESS": ""}


def metrics(run: RunFolder, stage: str) -> list[dict[str, Any]]:
    path = run.stage(list(NUM_STEPS).index(stage), stage).metrics
    if not path.is_file():
        return []
    lines = []
    for line in path.read_text().splitlines():
        try:
            lines.append(json.loads(line))
        except ValueError:
            continue  # the line that a killed process left unfinished
    return lines


def losses(run: RunFolder, stage: str) -> list[tuple[int, float, float]]:
    """(step, loss, grad_norm) of every step, as it counted in the end."""
    last = {line["step"]: (line["step"], line["loss"], line["grad_norm"]) for line in metrics(run, stage)}
    assert list(sorted(last)) == list(range(NUM_STEPS[stage]))
    return [last[step] for step in sorted(last)]


def wait_for_step(run: RunFolder, attempt: int, step: int, process: subprocess.Popen[bytes]) -> None:
    def reached() -> bool:
        assert process.poll() is None, "the driver ended by itself"
        return any(line["attempt"] == attempt and line["step"] >= step for line in metrics(run, "words"))

    wait_until(reached, 150, f"attempt {attempt} did not reach step {step}")


def wait_until(condition: Callable[[], bool], seconds: float, message: str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, message
        time.sleep(0.05)


def pid_of(run: RunFolder, attempt: int, rank: int) -> int:
    return int(json.loads((run.attempt(attempt) / f"rank-{rank:05d}.json").read_text())["pid"])


def is_alive(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
