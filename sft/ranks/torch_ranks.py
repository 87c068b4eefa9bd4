"""`Ranks` over torch's default process group; `process_group` starts it under torchrun, and Ray Train under Ray."""

from dataclasses import dataclass, field

import torch
import torch.distributed as dist
from torch import Tensor

from sft.progress import Progress
from sft.world import World


@dataclass(frozen=True)
class TorchRanks:
    """See `sft.ranks.ranks.Ranks`. Exchanged values go through the device of this rank, as NCCL requires."""

    world: World
    progress: Progress = field(default_factory=Progress)

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

    def _reduced(self, values: Tensor, by: dist.ReduceOp.RedOpType) -> Tensor:
        reduced = values.to(self.world.device, copy=True)
        dist.all_reduce(reduced, by)
        return reduced.cpu()

    def _gathered(self, values: Tensor) -> list[Tensor]:
        own = values.to(self.world.device)
        found = [torch.empty_like(own) for _ in range(self.world.size)]
        dist.all_gather(found, own)
        return [each.cpu() for each in found]
