"""The optimizers that a stage may name: the state that each keeps for a parameter, and its own settings.

`sft.engine.optimizers` builds them. Each works element by element: a number's update depends only on its own gradient
and state. So ZeRO-3, which cuts parameters into flat parts, computes the same as one process, and any number of ranks
can resume from a checkpoint. Optimizers that look at a whole matrix (Muon, Adafactor, Shampoo) do not fit here.
"""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

OptimizerName = Literal["adamw", "lion"]

MASTER = "master"
"""The kind of state that every optimizer has: a float32 copy of the parameter."""

_FLOAT32_BYTES = 4


class OptimizerTraits(NamedTuple):
    """What is known of an optimizer before it is built."""

    means: tuple[str, ...]
    """The other kinds of state that it keeps: each is one float32 number for each element."""
    settings: Mapping[str, Any]
    """Its own fields of `sft.config.OptimizerConfig`, with their defaults; settings of other optimizers are refused."""


OPTIMIZERS: Mapping[OptimizerName, OptimizerTraits] = {
    "adamw": OptimizerTraits(("exp_avg", "exp_avg_sq"), {"betas": (0.9, 0.95), "eps": 1e-8}),
    "lion": OptimizerTraits(("exp_avg",), {"betas": (0.9, 0.99)}),
}


def state_kinds(name: OptimizerName) -> tuple[str, ...]:
    """All kinds of state that are kept for each parameter, and saved."""
    return (MASTER, *OPTIMIZERS[name].means)


def state_bytes(name: OptimizerName) -> int:
    """Bytes of state for one element of a parameter."""
    return _FLOAT32_BYTES * len(state_kinds(name))
