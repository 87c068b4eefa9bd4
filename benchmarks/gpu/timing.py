"""Seconds and bytes of the device."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.gpu.part import Setting

_LONG_SECONDS = 1.5


def synchronize(setting: Setting) -> None:
    if setting.on_gpu:
        torch.cuda.synchronize()


def seconds_of(setting: Setting, run: Callable[[], Any], repeats: int, warm_up: int = 1) -> float:
    """The median time of a call, with nothing queued before and nothing left to do afterwards."""
    for _ in range(warm_up):
        run()
    times = []
    for _ in range(repeats):
        synchronize(setting)
        started = time.perf_counter()
        run()
        synchronize(setting)
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def seconds_of_step(setting: Setting, run: Callable[[], Any]) -> float:
    """The time of a step, after some that are not counted; of steps that take long, a single one counts."""
    run()  # DeepSpeed records the order of the modules
    once = seconds_of(setting, run, 1, warm_up=0)
    return once if setting.small or once > _LONG_SECONDS else seconds_of(setting, run, 3)


def allocated(setting: Setting) -> int:
    """Bytes of tensors on the device now."""
    return torch.cuda.memory_allocated() if setting.on_gpu else 0


def reset_peak(setting: Setting) -> None:
    if setting.on_gpu:
        torch.cuda.reset_peak_memory_stats()


def peak(setting: Setting) -> int | None:
    """The most bytes since `reset_peak`; None without a GPU."""
    return torch.cuda.max_memory_allocated() if setting.on_gpu else None
