"""Calls of the learning experiments for the forks of `tests.zygote`, which have imported everything."""

import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch.distributed as dist

from benchmarks.learning import __main__ as learning


def run(rank: int, size: int, arguments: list[str]) -> int:
    """The command, in a process without ranks."""
    dist.destroy_process_group()
    return learning.main(arguments)


def run_and_die(rank: int, size: int, arguments: list[str]) -> int:
    """The command, killed when its first training has ended while another one is under way."""
    write = learning.write_seconds

    def write_or_die(folder: Path, seconds: Mapping[str, Sequence[float]]) -> None:
        if set(seconds) - {"base"}:
            os.kill(os.getpid(), signal.SIGKILL)
        write(folder, seconds)

    learning.write_seconds = write_or_die
    return run(rank, size, arguments)
