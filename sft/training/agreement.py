"""An error of one rank becomes an error of all, before the next collective would wait for that rank in vain."""

import torch.distributed as dist
from torch import Tensor

from sft.checkpoint.rank_group import RankGroup
from sft.errors import TrainingError, UserError
from sft.world import World


def raise_on_all_ranks(message: str | None, kind: type[UserError] | type[TrainingError] = UserError) -> None:
    """All ranks call this together; where any has a message, all raise it.

    Raises:
        UserError: (or `kind`) with the messages of all ranks, each once.
    """
    world = World(dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else World()
    if found := RankGroup(world, all_reduce_max).texts(message or ""):
        raise kind("\n".join(found), is_everywhere=True)


def all_reduce_max(values: Tensor) -> Tensor:
    """The element-wise largest of `values` over all ranks, on the CPU; all ranks call this together."""
    if not dist.is_initialized():
        return values
    reduced = values.to("cuda" if dist.get_backend() == "nccl" else "cpu", copy=True)
    dist.all_reduce(reduced, dist.ReduceOp.MAX)
    return reduced.cpu()
