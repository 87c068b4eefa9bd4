"""Says once in a job which fused kernels its model got, where there are GPUs: without them it is slower, and right."""

from typing import Any

from sft.config import ModelConfig
from sft.model.kernels import in_words
from sft.ranks.ranks import Ranks
from sft.run_events import EventLog


def tell_kernels(model: Any, config: ModelConfig, ranks: Ranks, events: EventLog) -> None:
    """The first rank tells, and ranks that found something else on their GPU. All ranks call this together.

    Args:
        model: of an engine.
        config: `model.kernels` is read.
        ranks: all ranks.
        events: of this rank.
    """
    world = ranks.world
    if not world.on_gpu or config.kernels == "none":
        return
    text = in_words(model)
    of_first = ranks.gather(text)[0]
    if world.is_first or text != of_first:
        events.add("kernels", text, asked_for=config.kernels, gpu=world.device, node=world.node)
