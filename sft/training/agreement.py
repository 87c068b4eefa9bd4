"""An error of one rank becomes an error of all, before the next collective would wait for that rank in vain."""

import torch.distributed as dist
from torch import Tensor

from sft.errors import TrainingError, UserError


def raise_on_all_ranks(message: str | None, kind: type[UserError] | type[TrainingError] = UserError) -> None:
    """All ranks call this together; where any has a message, all raise it.

    Raises:
        UserError: (or `kind`) with the messages of all ranks, each once.
    """
    messages = [message]
    if dist.is_initialized() and dist.get_world_size() > 1:
        messages = [None] * dist.get_world_size()
        dist.all_gather_object(messages, message)
    found = sorted({text for text in messages if text})
    if found:
        raise kind("\n".join(found), is_everywhere=True)


def all_reduce_max(values: Tensor) -> Tensor:
    """The largest of `values` over all ranks, on the CPU; all ranks call this together, also without an engine."""
    if not dist.is_initialized():
        return values
    reduced = values.to("cuda" if dist.get_backend() == "nccl" else "cpu", copy=True)
    dist.all_reduce(reduced, dist.ReduceOp.MAX)
    return reduced.cpu()
