"""The peak memory of this rank since a stage began: in its process, and on its GPU."""

import resource
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import torch

from sft.world import World

_GIB = 1024**3
_PROCESS = Path("/proc/self")


class PeakMemory(NamedTuple):
    """Peaks in GiB (1024³ bytes)."""

    resident: float
    """Resident memory of the process."""
    allocated: float | None
    """Memory of tensors on the GPU; None without a GPU."""
    reserved: float | None
    """GPU memory that torch reserved; it keeps freed blocks for the next tensors. None without a GPU."""

    @property
    def of_training(self) -> float:
        """The peak where the training has its tensors: on the GPU, or in the process."""
        return self.resident if self.allocated is None else self.allocated


def reset_peaks(world: World) -> None:
    """Start the peaks anew."""
    # 5: "reset the peak resident set size to the current value" (the kernel's filesystems/proc.rst). If there is no
    # such file, as in sandboxes, the peak stays that since the process began.
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
