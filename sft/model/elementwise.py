"""What the parts of a layer between its matrix products compute: norm, rotation, gate. In torch, one operation a step.

These are the definitions. A module is known by being equal to one of them (`sft.model.recognition`), and a fused kernel
has to give the same result, rounded at the same places (`sft.model.fused`).
"""

from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import gelu, silu

NormForm = Literal["weight_after", "weight_before", "one_plus_weight", "no_weight"]
"""Where the root-mean-square norm is rounded to the dtype of its input: before its weight is applied (Llama), after it
(OLMo 2), after one plus its weight is (Gemma); or there is no weight."""

NORM_FORMS: tuple[NormForm, ...] = ("weight_after", "weight_before", "one_plus_weight", "no_weight")


def norm(x: Tensor, weight: Tensor | None, eps: float, form: NormForm) -> Tensor:
    """`x` divided by the root of the mean of its squares over the last dimension, times its weight."""
    wide = x.to(torch.float32)
    normed = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)
    if weight is None:
        return normed.to(x.dtype)
    if form == "weight_after":
        return weight * normed.to(x.dtype)
    return (normed * (weight.float() if form == "weight_before" else 1.0 + weight.float())).to(x.dtype)


class Pairs(NamedTuple):
    """Where the two elements of pair `i` lie: at `i * step`, and `gap` behind it (None: half of all behind it)."""

    step: int
    gap: int | None

    def places(self, num_pairs: int) -> tuple[slice, slice]:
        """The first and the second elements of all pairs."""
        gap = num_pairs if self.gap is None else self.gap
        stop = (num_pairs - 1) * self.step + 1
        return slice(0, stop, self.step), slice(gap, gap + stop, self.step)


HALVES, NEIGHBOURS, SHARED = Pairs(1, None), Pairs(2, 1), Pairs(1, 0)
"""The second half behind the first; one beside the other; one place for both."""


class RotaryForm(NamedTuple):
    """How a rotary embedding turns pairs of elements, each by the angle of its place."""

    given: Pairs
    made: Pairs
    table: Pairs
    """In the tables of cosines and sines."""
    has_half_table: bool = False
    """A table has one entry for each pair, else one for each element."""
    in_float32: bool = False
    """The products are not rounded to the dtype of the input before they are added."""
    keeps_dtype: bool = False
    """The result has the dtype of the input, also where the tables have a wider one."""

    def num_pairs(self, table_width: int) -> int:
        """The number of pairs that are turned, from the width of a table."""
        return table_width if self.has_half_table else table_width // 2


_LAYOUTS = (
    (HALVES, HALVES, HALVES, False),  # Llama
    (NEIGHBOURS, NEIGHBOURS, NEIGHBOURS, False),  # Cohere
    (NEIGHBOURS, NEIGHBOURS, SHARED, False),  # GLM
    (NEIGHBOURS, HALVES, SHARED, False),  # DeepSeek
    (HALVES, HALVES, SHARED, True),  # gpt-oss
)
_ROUNDINGS = ((False, False), (False, True), (True, True))
ROTARY_FORMS = tuple(RotaryForm(*layout, *rounding) for layout in _LAYOUTS for rounding in _ROUNDINGS)


def rotary(x: Tensor, cos: Tensor, sin: Tensor, form: RotaryForm) -> Tensor:
    """`x` with its first elements turned in pairs; those behind them stay.

    Args:
        x: (…, D).
        cos: of each place: (…, W), to be broadcast against `x`.
        sin: the same.
        form: which elements are a pair.
    """
    num_pairs = form.num_pairs(cos.shape[-1])
    first, second = form.given.places(num_pairs)
    of_first, of_second = form.table.places(num_pairs)
    given = x.float() if form.in_float32 else x
    a, b = given[..., first], given[..., second]
    turned_a = a * cos[..., of_first] - b * sin[..., of_first]
    turned_b = b * cos[..., of_second] + a * sin[..., of_second]
    parts = [turned_a, turned_b]
    turned = torch.cat(parts, -1) if form.made == HALVES else torch.stack(parts, -1).flatten(-2)
    turned = turned.to(x.dtype) if form.keeps_dtype else turned
    return torch.cat([turned, x[..., 2 * num_pairs :]], -1) if 2 * num_pairs < x.shape[-1] else turned


Activation = Literal["silu", "gelu_tanh"]

ACTIVATIONS: Mapping[Activation, Callable[[Tensor], Tensor]] = {
    "silu": silu,
    "gelu_tanh": lambda x: gelu(x, approximate="tanh"),
}


def gated(gate: Tensor, up: Tensor, activation: Activation) -> Tensor:
    """The activated gate times `up`."""
    return ACTIVATIONS[activation](gate) * up


def gated_halves(gate_up: Tensor, activation: Activation) -> Tensor:
    """The same for one tensor, with the gate in the first half of its last dimension."""
    gate, up = gate_up.chunk(2, -1)
    return gated(gate, up, activation)
