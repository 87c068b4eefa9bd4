"""What a rank asks of the others, and no more: three collectives.

The surface is small so that one rank alone, and the threads of a test, can stand where `torch.distributed` does.
"""

from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor

from sft.progress import Progress
from sft.world import World


class Ranks(Protocol):
    """All ranks of the job, as one of them sees them. Its methods are collectives: all ranks call them together."""

    @property
    def world(self) -> World:
        """Who this rank is."""
        ...

    @property
    def progress(self) -> Progress:
        """Where this rank is watched: it is told while the rank waits, and the others go on."""
        ...

    def sum(self, values: Tensor) -> Tensor:
        """The element-wise sum over all ranks of tensors of one shape and dtype, on the CPU."""
        ...

    def max(self, values: Tensor) -> Tensor:
        """The element-wise largest over all ranks of tensors of one shape and dtype, on the CPU."""
        ...

    def gather(self, text: str) -> list[str]:
        """The texts of all ranks, in their order."""
        ...


@dataclass(frozen=True)
class OneRank:
    """`Ranks` of a job that has one."""

    world: World = World()
    progress: Progress = field(default_factory=Progress)

    def sum(self, values: Tensor) -> Tensor:
        """There is no other."""
        return values.cpu()

    def max(self, values: Tensor) -> Tensor:
        """There is no other."""
        return values.cpu()

    def gather(self, text: str) -> list[str]:
        """There is no other."""
        return [text]
