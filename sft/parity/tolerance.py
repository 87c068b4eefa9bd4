"""By how much the log-probability of a token may differ between two ways to compute it, and why.

Plain transformers and the packed computation of training do the same sums in another order: attention over segments,
norms in one kernel, logits of some positions only. In float32 that changes the seventh digit of a logit. bfloat16 has
eight bits: logits between 16 and 32 lie 0.125 apart, and transformers rounds them to that, while training takes them on
in float32. Some models make more of it in deep layers. That cannot be known beforehand, so it is measured: the model
computes the same tokens here with its attention in other rounding, and twice that difference is allowed besides.
"""

from collections.abc import Sequence
from typing import NamedTuple

_BASE = {"float32": (1e-4, 1e-3), "bfloat16": (3e-2, 0.3), "float16": (5e-3, 5e-2)}
"""By dtype, in nats: the mean over all compared tokens, and a single token."""
_ROUNDINGS = 2.0


class Tolerance(NamedTuple):
    """What is allowed, in nats."""

    mean: float
    token: float


def tolerance_of(dtype: str, differences: Sequence[float]) -> Tolerance:
    """The tolerance for a dtype where other rounding alone makes these absolute differences."""
    mean, token = _BASE[dtype]
    if not differences:
        return Tolerance(mean, token)
    measured = sum(differences) / len(differences), max(differences)
    return Tolerance(mean + _ROUNDINGS * measured[0], token + _ROUNDINGS * measured[1])
