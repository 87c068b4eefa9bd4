"""`Ranks` over torch's default process group; `process_group` starts it under torchrun, and Ray Train under Ray."""

from dataclasses import dataclass, field

import torch
import torch.distributed as dist
from torch import Tensor

from sft.progress import Progress
from sft.ranks.process_group import NEVER
from sft.world import World


@dataclass(frozen=True)
class TorchRanks:
    """See `sft.ranks.ranks.Ranks`. Exchanged values go through the device of this rank, as NCCL requires."""

    world: World
    progress: Progress = field(default_factory=Progress)
    _sequence_groups: list[dist.ProcessGroup] = field(default_factory=list, repr=False, compare=False)
    """That of `World.sequence_ranks`, once it is made."""

    def sum(self, values: Tensor) -> Tensor:
        """See `Ranks`."""
        return self._reduced(values, dist.ReduceOp.SUM)

    def max(self, values: Tensor) -> Tensor:
        """See `Ranks`."""
        return self._reduced(values, dist.ReduceOp.MAX)

    def gather(self, text: str) -> list[str]:
        """See `Ranks`. Nothing is pickled, so data from another rank runs no code."""
        content = torch.tensor(list(text.encode()), dtype=torch.uint8)
        lengths = [int(length) for length in self._gathered(torch.tensor([len(content)]))]
        if not any(lengths):
            return [""] * self.world.size
        padded = torch.zeros(max(lengths), dtype=torch.uint8)
        padded[: len(content)] = content
        rows = self._gathered(padded)
        return [bytes(row[:length].tolist()).decode() for row, length in zip(rows, lengths, strict=True)]

    def all_to_all(self, values: Tensor) -> Tensor:
        """See `Ranks`."""
        ranks = self.world.sequence_ranks
        if len(ranks) == 1:
            return values
        if not self._sequence_groups:
            # Ranks of other groups need not take part. The watch decides about hangs, so nothing times out by itself.
            made = dist.new_group(list(ranks), timeout=NEVER, use_local_synchronization=True)
            assert isinstance(made, dist.ProcessGroup)
            self._sequence_groups.append(made)
        sent = values.contiguous()
        received = torch.empty_like(sent)
        # As bytes, because not every backend knows every dtype.
        dist.all_to_all_single(received.view(torch.uint8), sent.view(torch.uint8), group=self._sequence_groups[0])
        return received

    def _reduced(self, values: Tensor, by: dist.ReduceOp.RedOpType) -> Tensor:
        reduced = values.to(self.world.device, copy=True)
        dist.all_reduce(reduced, by)
        return reduced.cpu()

    def _gathered(self, values: Tensor) -> list[Tensor]:
        own = values.to(self.world.device)
        found = [torch.empty_like(own) for _ in range(self.world.size)]
        dist.all_gather(found, own)
        return [each.cpu() for each in found]
