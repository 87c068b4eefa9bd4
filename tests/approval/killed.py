"""Prepares and is killed, again and again: python -m tests.approval.killed DATA_JSON MODEL_JSON NUM_KILLS SEED"""

import os
import random
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

from sft.config import DataConfig, ModelConfig
from sft.data.preparation import prepare_store


def start(data: DataConfig, model: ModelConfig) -> int:
    if child := os.fork():
        return child
    prepare_store(data, model)
    os._exit(0)


def gathering(cache: Path) -> int:
    """When it began; 0 where nothing is gathered."""
    began = 0
    for path in (cache / "approved").glob(".*.publish.partial"):
        with suppress(FileNotFoundError):  # published since it was listed
            began = max(began, path.stat().st_ctime_ns)
    return began


def has_ended(pid: int) -> bool:
    """Of a child that nobody has waited for."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


if __name__ == "__main__":
    data, model = DataConfig.model_validate_json(sys.argv[1]), ModelConfig.model_validate_json(sys.argv[2])
    draw, num_kills, num_gathering = random.Random(int(sys.argv[4])), int(sys.argv[3]), 0
    for number in range(num_kills):
        before, pid = gathering(data.cache_dir), start(data, model)
        until = time.monotonic() + (10.0 if number < num_kills // 2 else draw.uniform(0.0, 0.6))
        while time.monotonic() < until and not has_ended(pid):  # where all is gathered, nothing is any more
            if number < num_kills // 2 and gathering(data.cache_dir) > before:
                time.sleep(draw.uniform(0.0, 0.02))  # to be killed at any moment of it
                num_gathering += gathering(data.cache_dir) > before
                break
            time.sleep(0.001)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    assert os.waitpid(start(data, model), 0)[1] == 0
    sys.stdout.write(f"{num_gathering}\n")
