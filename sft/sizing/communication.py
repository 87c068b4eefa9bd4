"""How long the network between the nodes is busy in a step of ZeRO-3, with and without hpZ.

All workers gather and reduce in a ring whose neighbours are in the same node where possible, as NCCL builds it. So what
one worker receives from the others enters each node once: the least time is a worker's traffic (`traffic`) divided by
the bandwidth of a node.

hpZ (Wang et al. 2023, "ZeRO++", section 3.2) keeps a second copy of the parameters, split over the workers of a node.
As DeepSpeed runs it, only the first gathering of a parameter in a step crosses the network; later ones stay in the
node, until the update makes the copy stale.
"""

from typing import NamedTuple

from sft.sizing.memory import split
from sft.sizing.model_shape import ModelShape
from sft.sizing.nodes import Nodes
from sft.sizing.setting import Setting
from sft.sizing.traffic import Traffic


class Communication(NamedTuple):
    """The least time that the network needs in a step, in seconds."""

    gathering: float
    """For parameters, without hpZ."""
    gathering_with_hpz: float
    reducing: float
    """For gradients."""
    has_hpz: bool
    """Whether the config asks for hpZ."""
    hpz_bytes: int
    """What hpZ needs on each worker's device: its part of the second copy."""
    hpz_size: int
    """The workers of a node, which would share the copy."""
    exchanging: float = 0.0
    """For tokens of attention, where workers on several nodes share micro-batches."""

    @property
    def seconds(self) -> float:
        """In all, with the config's choice of hpZ."""
        gathering = self.gathering_with_hpz if self.has_hpz else self.gathering
        return self.reducing + gathering + self.exchanging


def step_communication(shape: ModelShape, setting: Setting, traffic: Traffic, nodes: Nodes) -> Communication | None:
    """The network's part of a step; None if all workers are in one node, or its bandwidth is not known.

    Args:
        shape: the model.
        setting: the setting of the stage.
        traffic: the traffic of a step of the stage (see `step_traffic`).
        nodes: the workers of a node share its network.
    """
    if nodes.network_gb_per_second is None or setting.num_workers <= nodes.workers_per_node:
        return None
    bandwidth = nodes.network_gb_per_second * 1e9
    once = setting.numbers.num_bytes * shape.num_parameters * (setting.num_workers - 1) / setting.num_workers
    return Communication(
        traffic.gathered / bandwidth,
        min(once, traffic.gathered) / bandwidth,
        traffic.reduced / bandwidth,
        setting.num_copy_ranks > 1,
        setting.numbers.num_bytes * split(shape.num_held, nodes.workers_per_node),
        nodes.workers_per_node,
        _leaving(setting.sequence_parallel, nodes.workers_per_node) * traffic.exchanged / bandwidth,
    )


def _leaving(num_parts: int, per_node: int) -> float:
    """How many workers' exchanged tokens leave a node, at the most: each sends as much to every worker of its group."""
    if per_node % num_parts == 0:
        return 0.0
    on_node = min(num_parts - 1, per_node)
    return min(per_node, num_parts) * (num_parts - on_node) / (num_parts - 1)
