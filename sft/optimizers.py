"""The optimizers that a stage may name: what each keeps of a parameter, and the settings that are its own.

How they are built is in `sft.engine.optimizers`. Each works element by element: a number's update depends on its own
gradient and state alone. So ZeRO-3, which cuts parameters into flat parts, computes what one process would, and any
number of ranks goes on from a checkpoint. What looks at a whole matrix (Muon, Adafactor, Shampoo) is none of these.
"""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

OptimizerName = Literal["adamw", "lion"]

MASTER = "master"
"""The kind of state that every optimizer has of a parameter: its float32 copy."""

_FLOAT32_BYTES = 4


class OptimizerTraits(NamedTuple):
    """What is known of an optimizer before it is built."""

    means: tuple[str, ...]
    """The kinds of state that it keeps besides: each one float32 number of each element."""
    settings: Mapping[str, Any]
    """Its own fields of `sft.config.OptimizerConfig`, with their defaults; those of others do not go with it."""


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
