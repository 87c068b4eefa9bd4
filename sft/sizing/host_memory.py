"""What a worker's process holds in the memory of its machine, besides what is on a GPU."""

from typing import NamedTuple

from sft.sizing.memory import offloaded_activations, offloaded_states, peak_memory, split
from sft.sizing.model_shape import ModelShape
from sft.sizing.setting import Setting

GIB = 1024**3
_BFLOAT16_BYTES = 2

CPU_PROCESS_BYTES = round(0.6 * GIB)
"""Allowance: Python, torch, DeepSpeed and transformers in a process that trains on CPUs (measured: 0.5 GiB)."""

CPU_KERNELS_BYTES = round(0.6 * GIB)
"""Allowance: in bfloat16, oneDNN keeps a compiled kernel for each shape of a matrix product, and packs vary in length;
at most 1,024 kernels of 0.6 MiB (measured)."""

CPU_KEPT_BLOCKS = 0.55
"""Allowance: what glibc keeps of freed blocks, as a share of what a step takes (measured: docs/BENCHMARKS.md)."""

GPU_PROCESS_BYTES = 4 * GIB
"""Allowance: the same with CUDA's libraries. Not measured."""


class HostMemory(NamedTuple):
    """Host memory of one worker, in bytes."""

    process: int
    """Allowance for the process itself."""
    states: int
    """Offloaded state: parameters, gradients (twice), optimizer state."""
    activations: int
    """Offloaded inputs of the layers that are computed again."""
    step: int
    """Without a GPU: what the largest moment of a step takes."""
    kept_blocks: int
    """Without a GPU: allowance for freed blocks that the C library keeps."""
    checkpoint: int
    """The copy that a checkpoint is written from while training goes on; beside a GPU, page-locked and kept."""
    first_worker: int
    """Pages of the model's files, where the first worker reads them all because tensors are converted (see
    `sft.model.own_weights`); the system can reclaim them at any time."""

    @property
    def total(self) -> int:
        """What a worker needs, without the pages of files."""
        return self.process + self.states + self.activations + self.step + self.kept_blocks + self.checkpoint


def host_memory(shape: ModelShape, setting: Setting) -> HostMemory:
    """The memory that a worker needs on its machine."""
    on_gpu = setting.numbers.on_gpu
    part = split(shape.num_parameters, setting.num_workers)
    copy = setting.optimizer_bytes * part if setting.copies_checkpoint else 0
    step = 0 if on_gpu else peak_memory(shape, setting).total
    kernels = CPU_KERNELS_BYTES if setting.numbers.num_bytes == _BFLOAT16_BYTES else 0
    return HostMemory(
        GPU_PROCESS_BYTES if on_gpu else CPU_PROCESS_BYTES + kernels,
        sum(offloaded_states(shape, setting)) if on_gpu else 0,
        offloaded_activations(shape, setting),
        step,
        round(CPU_KEPT_BLOCKS * step),
        copy,
        setting.numbers.num_bytes * shape.num_held,
    )
