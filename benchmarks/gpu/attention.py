"""Part 1: packed attention and its gradients beside float64, written out segment by segment."""

import itertools
from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from benchmarks.gpu.cases import each
from benchmarks.gpu.part import Row, Setting, at_most
from sft.model.attention import packed_attention

OUT_BOUND, GRADIENT_BOUND = 1e-2, 2e-2
EXACT_BOUND = 1e-4
"""For float32, which must not have gone through anything with fewer digits."""


class Case(NamedTuple):
    """One kind of attention."""

    width: int
    heads: int = 8
    key_heads: int = 8
    value_width: int | None = None
    window: int | None = None
    scale: float | None = None
    softcap: float | None = None
    dtype: torch.dtype = torch.bfloat16

    def __str__(self) -> str:
        parts = [f"width {self.width}", f"{self.heads} heads, {self.key_heads} of keys"]
        named = ("value_width", "window", "scale", "softcap")
        parts += [f"{name} {value}" for name in named if (value := getattr(self, name)) is not None]
        return ", ".join([*parts, str(self.dtype).removeprefix("torch.")])


def cases(small: bool) -> list[Case]:
    if small:
        return [Case(16, 4, 2, window=3, scale=0.2), Case(16, 2, 2, dtype=torch.float32)]
    heads = ((8, 8), (8, 2))
    grid = itertools.product((64, 128, 256), heads, (None, 100), (None, 0.05))
    found = [Case(width, *h, window=window, scale=scale) for width, h, window, scale in grid]
    found += [Case(64, 8, 2, dtype=torch.float16), Case(80), Case(192, value_width=128), Case(512, 4, 4)]
    found += [Case(64, 8, 2, window=w, dtype=torch.float32) for w in (None, 100)]
    return [*found, Case(64, softcap=30.0)]


def run(setting: Setting) -> Iterator[Row]:
    lengths = [1, 2, 40] if setting.small else [1, 2, 2000, 1, 777, 64]
    torch.manual_seed(0)
    named = {str(case): partial(_compare, setting, case, lengths) for case in cases(setting.small)}
    yield from each(setting, named, seconds=1)


def _compare(setting: Setting, case: Case, lengths: list[int]) -> Iterator[Row]:
    total = sum(lengths)
    widths = (case.width, case.width, case.value_width or case.width)
    heads = (case.heads, case.key_heads, case.key_heads)
    inputs = [
        torch.randn(1, h, total, width, device=setting.device).to(case.dtype)
        for h, width in zip(heads, widths, strict=True)
    ]
    weights = torch.randn(1, total, case.heads, widths[2], device=setting.device).to(case.dtype)
    bounds = torch.tensor([0, *itertools.accumulate(lengths)], dtype=torch.int32, device=setting.device)
    q, k, v = (x.detach().clone().requires_grad_() for x in inputs)
    out, _ = packed_attention(
        nn.Module(), q, k, v, None, scaling=case.scale, sliding_window=case.window, softcap=case.softcap,
        cu_seq_lens_q=bounds, max_length_q=max(lengths),
    )  # fmt: skip
    out.backward(weights)
    exact = [x.detach().double().requires_grad_() for x in inputs]
    exact_out = reference(exact[0], exact[1], exact[2], case, lengths)
    exact_out.backward(weights.double())
    error_out = worst(out, exact_out, lengths, dim=1)
    pairs = zip((q, k, v), exact, strict=True)
    error_gradient = max(worst(_grad(x), _grad(y), lengths, dim=2) for x, y in pairs)
    is_exact = case.dtype == torch.float32
    goals = (
        at_most("out", error_out, EXACT_BOUND if is_exact else OUT_BOUND),
        at_most("gradients", error_gradient, EXACT_BOUND if is_exact else GRADIENT_BOUND),
    )
    yield Row(str(case), {"error of out": error_out, "of gradients": error_gradient}, goals)


def _grad(tensor: Tensor) -> Tensor:
    assert tensor.grad is not None
    return tensor.grad


def reference(query: Tensor, key: Tensor, value: Tensor, case: Case, lengths: list[int]) -> Tensor:
    """Attention as its definition says: (1, H, T, D), … → (1, T, H, D')."""
    groups = case.heads // case.key_heads
    key, value = (x.repeat_interleave(groups, dim=1) for x in (key, value))
    outputs, start = [], 0
    for length in lengths:
        q, k, v = (x[:, :, start : start + length] for x in (query, key, value))
        scores = q @ k.mT * (case.width**-0.5 if case.scale is None else case.scale)
        if case.softcap is not None:
            scores = case.softcap * torch.tanh(scores / case.softcap)
        at = torch.arange(length, device=query.device)
        distance = at[:, None] - at[None, :]
        hidden = (distance < 0) | (distance >= (case.window or length))
        outputs.append(scores.masked_fill(hidden, -torch.inf).softmax(-1) @ v)
        start += length
    return torch.cat(outputs, dim=2).transpose(1, 2)


def worst(found: Tensor, exact: Tensor, lengths: list[int], dim: int) -> float:
    """The largest error of a segment: root mean square, relative to that of the segment or of all, the larger.

    By segments, so that a wrong one of a single token is seen.
    """
    whole = _size(exact)
    parts = zip(found.detach().double().split(lengths, dim), exact.detach().split(lengths, dim), strict=True)
    return max(_size(f - e) / max(_size(e), whole) for f, e in parts)


def _size(tensor: Tensor) -> float:
    return float(tensor.detach().square().mean().sqrt())
