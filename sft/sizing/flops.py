"""How much arithmetic a stage needs, and so how long it takes and what it costs.

Counted as for the model FLOPs utilisation of Chowdhery et al. 2022 ("PaLM", appendix B): each matrix element takes two
operations a token forward and four backward; recomputation for activation checkpointing does not count. Two things are
counted as they are done here: attention only looks back, within segments; and the head works on supervised positions
only.
"""

from typing import NamedTuple

from sft.sizing.model_shape import ModelShape

_FORWARD_AND_BACKWARD = 3


class TokenCounts(NamedTuple):
    """What a stage trains on."""

    num_tokens: int
    num_supervised_tokens: int
    squared_lengths: int
    """The sum of the squares of the examples' lengths in tokens."""


def training_flops(shape: ModelShape, counts: TokenCounts) -> float:
    """Floating-point operations of all forward and backward passes."""
    matrices = sum(layer.num_active for layer in shape.layers)
    # Each pair of a query and a key at or before it: a product and a weighted sum over all heads' widths.
    attention = sum(2 * layer.attention.query_width for layer in shape.layers)
    forward = (
        2 * matrices * counts.num_tokens
        + attention * counts.squared_lengths
        + 2 * shape.head_size * counts.num_supervised_tokens
    )
    return float(_FORWARD_AND_BACKWARD * forward)


def training_seconds(flops: float, mfu: float, teraflops: float, num_gpus: float) -> float:
    """Seconds that `flops` take on `num_gpus` GPUs; `mfu` is the share of their arithmetic that is used."""
    return flops / (mfu * teraflops * 1e12 * num_gpus)
