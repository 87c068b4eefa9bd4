"""Says once in an attempt who shares micro-batches (`train.sequence_parallel`), if that is slower than it could be."""

import torch

from sft.errors import UserError
from sft.ranks.ranks import Ranks
from sft.run_events import EventLog


def tell_groups(ranks: Ranks, events: EventLog) -> None:
    """The first rank tells which groups lie on several nodes, and which ranks have no group. All ranks call this.

    Ray Train and torchrun number a node's ranks consecutively, so a group lies on one node wherever each node has a
    multiple of its ranks.

    Raises:
        UserError: on all ranks: they are too few for one group.
    """
    world = ranks.world
    if world.sequence_parallel == 1:
        return
    if not world.data_size:
        raise UserError(
            f"train.sequence_parallel: {world.sequence_parallel} workers share each micro-batch, but there are "
            f"{world.size}.",
            is_everywhere=True,
        )
    group, node = world.sequence_ranks, world.node_ranks
    is_spread = group.start < node.start or group.stop > node.stop
    num_spread = int(ranks.sum(torch.tensor([int(is_spread and world.speaks_for_group)])))
    num_left = world.size % world.sequence_parallel
    parts = []
    if num_spread:
        parts.append(
            f"{num_spread} of {world.data_size} groups of {world.sequence_parallel} workers lie on several nodes, so "
            "each layer exchanges tokens over the network: give every node a multiple of train.sequence_parallel"
        )
    if num_left:
        parts.append(f"{num_left} of {world.size} workers make no whole group, and have nothing to do but their part")
    if parts and world.is_first:
        events.add("sharing", "; ".join(parts), num_spread=num_spread, num_left=num_left)
