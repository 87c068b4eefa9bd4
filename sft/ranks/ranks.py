"""What a rank needs from the others: three collectives of all ranks, and one of those that share micro-batches.

The protocol is small, so that a single rank, or the threads of a test, can replace `torch.distributed`.
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
        """What the watch for hangs looks at: it counts while this rank waits and the others make progress."""
        ...

    def sum(self, values: Tensor) -> Tensor:
        """The element-wise sum over all ranks of tensors of one shape and dtype, on the CPU."""
        ...

    def max(self, values: Tensor) -> Tensor:
        """The element-wise maximum over all ranks of tensors of one shape and dtype, on the CPU."""
        ...

    def gather(self, text: str) -> list[str]:
        """The texts of all ranks, in their order."""
        ...

    def all_to_all(self, values: Tensor) -> Tensor:
        """Among the ranks that share micro-batches (`World.sequence_ranks`): a part goes to each, one comes from each.

        (P, …) → (P, …) on the same device, with P of these ranks: part p goes to rank p, and is replaced by what rank p
        has sent to this one. Only these ranks call it together. Done twice, it changes nothing.
        """
        ...


@dataclass(frozen=True)
class OneRank:
    """`Ranks` of a job with one rank."""

    world: World = World()
    progress: Progress = field(default_factory=Progress)

    def sum(self, values: Tensor) -> Tensor:
        """The values themselves."""
        return values.cpu()

    def max(self, values: Tensor) -> Tensor:
        """The values themselves."""
        return values.cpu()

    def gather(self, text: str) -> list[str]:
        """The text itself."""
        return [text]

    def all_to_all(self, values: Tensor) -> Tensor:
        """The values themselves."""
        return values
