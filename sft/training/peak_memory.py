"""The most memory that this rank has held since a stage began: in its process, and on its GPU."""

import resource
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import torch

from sft.world import World

_GIB = 1024**3
_PROCESS = Path("/proc/self")


class PeakMemory(NamedTuple):
    """GiB (1024³ bytes)."""

    resident: float
    """Of the process."""
    allocated: float | None
    """By tensors on the GPU; None without one."""
    reserved: float | None
    """Of the GPU, by torch, which keeps freed blocks for the next tensors; None without one."""

    @property
    def of_training(self) -> float:
        """Where the training has its tensors: on the GPU, or in the process."""
        return self.resident if self.allocated is None else self.allocated


def reset_peaks(world: World) -> None:
    """Begin to count anew."""
    # 5: "reset the peak resident set size to the current value" (the kernel's filesystems/proc.rst). Where there is
    # no such file, as in sandboxes, the peak stays that of the process since it began.
    with suppress(OSError):
        (_PROCESS / "clear_refs").write_text("5")
    if world.on_gpu:
        torch.cuda.reset_peak_memory_stats(world.device)


def read_peaks(world: World) -> PeakMemory:
    """The peaks since `reset_peaks`."""
    if not world.on_gpu:
        return PeakMemory(_resident_gib(), None, None)
    allocated, reserved = torch.cuda.max_memory_allocated(world.device), torch.cuda.max_memory_reserved(world.device)
    return PeakMemory(_resident_gib(), allocated / _GIB, reserved / _GIB)


def _resident_gib() -> float:
    with suppress(OSError):
        for line in (_PROCESS / "status").read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / _GIB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / _GIB
