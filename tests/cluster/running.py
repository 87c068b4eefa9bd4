"""Jobs in two stages started as users start them, and what can be seen of them from outside."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sft.run_folder import RunFolder

ROOT = Path(__file__).parents[2]
SFT = [sys.executable, "-m", "launcher"]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
STAGES = ["broad", "words"]


def run_to_end(command: list[str]) -> None:
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=200, cwd=ROOT, env=environment(), check=False
    )
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"


def started(command: list[str], output: int = subprocess.DEVNULL) -> subprocess.Popen[str]:
    """In a session of its own; with `subprocess.PIPE` all that it prints can be read."""
    return subprocess.Popen(
        command,
        stdout=output,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
        env=environment(),
        start_new_session=True,
    )


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)} | {"RAY_ADDRESS": ""}


def metrics(run: RunFolder, stage: str) -> list[dict[str, Any]]:
    path = run.stage(STAGES.index(stage), stage).metrics
    if not path.is_file():
        return []
    lines = []
    for line in path.read_text().splitlines():
        try:
            lines.append(json.loads(line))
        except ValueError:
            continue  # the line that a killed process left unfinished
    return lines


def losses(run: RunFolder, stage: str, num_steps: int) -> list[tuple[int, float, float]]:
    """(step, loss, grad_norm) of every step, as it counted in the end."""
    last = {line["step"]: (line["step"], line["loss"], line["grad_norm"]) for line in metrics(run, stage)}
    assert sorted(last) == list(range(num_steps))
    return [last[step] for step in sorted(last)]


def wait_for_step(run: RunFolder, attempt: int, step: int, process: subprocess.Popen[bytes]) -> None:
    def reached() -> bool:
        assert process.poll() is None, "the driver ended by itself"
        return any(line["attempt"] == attempt and line["step"] >= step for line in metrics(run, "words"))

    wait_until(reached, 240, f"attempt {attempt} did not reach step {step}")


def wait_until(condition: Callable[[], bool], seconds: float, message: str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, message
        time.sleep(0.05)


def pid_of(run: RunFolder, attempt: int, rank: int) -> int:
    return int(json.loads(run.attempt(attempt).rank(rank).read_text())["pid"])


def is_alive(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
