"""Whether a stage fits its GPUs, and how many packs a micro-batch may hold."""

import math
from bisect import bisect_right
from typing import Any, NamedTuple

from sft.config import SftConfig
from sft.sizing.memory import Memory, peak_memory
from sft.sizing.model_shape import ModelShape
from sft.sizing.setting import Setting

GIB = 1024**3

CONTEXT_BYTES = round(1.5 * GIB)
"""Allowance: CUDA context, cuBLAS work space and NCCL's buffers on each GPU. Not measured."""

FRAGMENTATION = 0.05
"""Allowance: what torch's allocator holds in blocks that nothing fits into, as a share of what is allocated. Not
measured."""


class Job(NamedTuple):
    """A stage of a config, a model and workers: everything that its memory depends on."""

    config: SftConfig
    shape: ModelShape
    stage_index: int
    num_workers: int
    between_nodes: bool = False
    """Whether the workers are in several nodes."""

    def having(self, section: str, **values: Any) -> "Job":
        """The same job with other values in a section of the config."""
        changed = getattr(self.config, section).model_copy(update=values)
        return self._replace(config=self.config.model_copy(update={section: changed}))

    @property
    def setting(self) -> Setting:
        """How its steps are run on GPUs."""
        return Setting.of(self.config, self.stage_index, self.num_workers, True, self.shape, self.between_nodes)

    @property
    def num_bytes(self) -> int:
        """What each GPU needs, allowances included."""
        return with_allowances(peak_memory(self.shape, self.setting))

    @property
    def packs_per_worker(self) -> int:
        """The most packs of a step that a worker gets, alone or with those that share its micro-batches."""
        train = self.config.train
        return math.ceil(train.packs_per_step / train.num_groups(self.num_workers))


def with_allowances(memory: Memory) -> int:
    """Bytes in use on a GPU when torch has allocated this much."""
    return CONTEXT_BYTES + round(memory.total * (1 + FRAGMENTATION))


def largest_packs_per_micro_batch(job: Job, capacity: int) -> int:
    """The most packs in a micro-batch for a GPU of `capacity` bytes; 0 if one is too many."""
    packs = range(1, job.packs_per_worker + 1)
    return bisect_right(packs, capacity, key=lambda count: job.having("train", packs_per_micro_batch=count).num_bytes)
