"""The optimizers that a stage may name: what each keeps of a parameter, and the settings that are its own.

How they are built is in `sft.engine.optimizers`. Each works element by element: a number's update depends on its own
gradient and state alone. So ZeRO-3, which cuts parameters into flat parts, computes what one process would, and any
number of ranks goes on from a checkpoint. What looks at a whole matrix (Muon, Adafactor, Shampoo) is none of these.
"""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from pydantic import Field, NonNegativeFloat, PositiveFloat

from sft.config_effects import AffectsNumbers, AffectsRate
from sft.config_section import BelowOne, Section, Share

OptimizerName = Literal["adamw", "lion"]

MASTER = "master"
"""The kind of state that every optimizer has of a parameter: its float32 copy."""

_FLOAT32_BYTES = 4


class OptimizerTraits(NamedTuple):
    """What is known of an optimizer before it is built."""

    means: tuple[str, ...]
    """The kinds of state that it keeps besides: each one float32 number of each element."""
    settings: Mapping[str, Any]
    """Its own fields of `OptimizerConfig`, with their defaults; those of others do not go with it."""


OPTIMIZERS: Mapping[OptimizerName, OptimizerTraits] = {
    "adamw": OptimizerTraits(("exp_avg", "exp_avg_sq"), {"betas": (0.9, 0.95), "eps": 1e-8}),
    "lion": OptimizerTraits(("exp_avg",), {"betas": (0.9, 0.99)}),
}


def state_kinds(name: OptimizerName) -> tuple[str, ...]:
    """All that is kept of each parameter, and saved."""
    return (MASTER, *OPTIMIZERS[name].means)


def state_bytes(name: OptimizerName) -> int:
    """Bytes of a parameter's state."""
    return _FLOAT32_BYTES * len(state_kinds(name))


def _own_setting(field: str) -> Any:
    """What the named optimizer has by default; None for a setting that is not its own."""
    return Field(default_factory=lambda given: OPTIMIZERS[given["name"]].settings.get(field))


class OptimizerConfig(Section):
    """How a stage's parameters are updated."""

    name: AffectsNumbers[OptimizerName] = "adamw"
    """AdamW, or Lion, which keeps 8 bytes of a parameter instead of 12. Lion wants an `lr` a third to a tenth of
    AdamW's, and a `weight_decay` that is larger by as much."""
    lr: AffectsRate[PositiveFloat]
    """The peak learning rate."""
    schedule: AffectsRate[Literal["cosine", "linear", "constant"]] = "cosine"
    """From the peak down to `min_lr_ratio`, or constant after the warm-up."""
    warmup_ratio: AffectsRate[Share] = 0.03
    """Part of the stage's steps in which the rate rises from zero."""
    min_lr_ratio: AffectsRate[Share] = 0.0
    """The last rate as a part of the peak."""
    weight_decay: AffectsNumbers[NonNegativeFloat] = 0.0
    """Decoupled decay; norms and biases are exempt."""
    betas: AffectsNumbers[tuple[BelowOne, BelowOne]] = _own_setting("betas")
    """Of AdamW, the decay of the running mean and of the running square; default: [0.9, 0.95]. Of Lion, how the last
    gradient is weighed in an update and in the running mean; default: [0.9, 0.99]."""
    eps: AffectsNumbers[PositiveFloat | None] = _own_setting("eps")
    """Of AdamW: keeps the division finite. Default: 1e-8."""
    max_grad_norm: AffectsNumbers[PositiveFloat] = 1.0
    """Gradients with a larger norm are scaled down to it."""
