"""Says once in a job which fused kernels its model got, where there are GPUs: without them it is slower, and right."""

from typing import Any

from sft.config import ModelConfig
from sft.model.kernels import count_kernels, failed_proofs
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


def in_words(model: Any) -> str:
    """What was put into a model on a GPU, and why not more."""
    counts, failed = count_kernels(model), "; ".join(failed_proofs(model))
    if counts:
        text = "fused kernels: " + ", ".join(f"{number:,} × {kind}" for kind, number in sorted(counts.items()))
        return f"{text}; others could not be proven right on this GPU: {failed}" if failed else text
    return (
        f"no fused kernel could be proven right: {failed or f'{type(model).__name__} has no part of a known form'}. "
        "Norms, rotary embeddings and gates run one operation after another, which is right, but slower and takes more "
        "memory (docs/KERNELS.md)"
    )
