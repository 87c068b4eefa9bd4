"""Norm, rotary embedding and gate in one kernel each way, with the results of `sft.model.elementwise`.

Forward, a kernel gives what the definition gives, rounded at the same places. Backward, it rounds what torch rounds,
but sums a norm's gradient in float32 throughout, which is closer to the exact one. Only the inputs are kept for it.

Where no kernel runs (on a CPU, without Triton, for a dtype or a layout in memory that the kernels do not take) the
definition itself does.
"""

import importlib.util
import os
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from sft.model import elementwise
from sft.model.elementwise import Activation, NormForm, RotaryForm

HAS_TRITON = importlib.util.find_spec("triton") is not None
_IS_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
_MAX_NORM_WIDTH = 16384
BLOCK = 2048
"""Elements that a program computes at a time."""
_PROGRAMS_PER_PROCESSOR = 4
# Without it the compiler makes one operation of a product and a sum, which rounds once where torch rounds twice.
_EXACT = {"enable_fp_fusion": False}


def runs_on(*tensors: Tensor) -> bool:
    """Whether the kernels run on these tensors."""
    where = all(x.is_cuda for x in tensors) or _IS_INTERPRETED
    return HAS_TRITON and where and all(x.dtype in _DTYPES and x.numel() for x in tensors)


def norm(x: Tensor, weight: Tensor | None, eps: float, form: NormForm) -> Tensor:
    """See `elementwise.norm`."""
    # In the order of its memory, as the result of torch's own operations is.
    order = [*sorted(range(x.ndim - 1), key=x.stride, reverse=True), x.ndim - 1]
    in_memory = x.permute(order)
    if x.shape[-1] > _MAX_NORM_WIDTH or not in_memory.is_contiguous() or not runs_on(x):
        return elementwise.norm(x, weight, eps, form)
    back = [order.index(i) for i in range(x.ndim)]
    made: Tensor = _apply(_Norm, in_memory, weight, eps, form)
    return made.permute(back)


def rotary(x: Tensor, cos: Tensor, sin: Tensor, form: RotaryForm) -> Tensor:
    """See `elementwise.rotary`.

    Args:
        x: (B, H, T, D).
        cos: (B or 1, 1, T, W).
        sin: the same.
        form: which elements are a pair.
    """
    is_flat = all(t.stride(-1) == 1 for t in (x, cos, sin)) and cos.stride() == sin.stride()
    if not is_flat or cos.requires_grad or not runs_on(x, cos, sin):
        return elementwise.rotary(x, cos, sin, form)
    made: Tensor = _apply(_Rotary, x, cos, sin, form)
    return made


def gated(gate: Tensor, up: Tensor, activation: Activation) -> Tensor:
    """See `elementwise.gated`."""
    if gate.dtype != up.dtype or gate.shape != up.shape or not runs_on(gate, up):
        return elementwise.gated(gate, up, activation)
    made: Tensor = _apply(_Gated, gate, up, activation)
    return made


def gated_halves(gate_up: Tensor, activation: Activation) -> Tensor:
    """See `elementwise.gated_halves`."""
    if not runs_on(gate_up):
        return elementwise.gated_halves(gate_up, activation)
    made: Tensor = _apply(_GatedHalves, gate_up, activation)
    return made


def _apply(function: Any, *given: Any) -> Any:
    return function.apply(*given)


def _kernels() -> Any:
    # Imported where a kernel runs: a machine for tests may have no Triton.
    from sft.model import triton_kernels  # noqa: PLC0415

    return triton_kernels


def _power_of_two(n: int) -> int:
    return 1 << max(0, n - 1).bit_length()


def _num_warps(block: int) -> int:
    # So that up to a width of 8,192 no register of the backward kernel is spilled.
    return 4 if block <= 2048 else 8 if block <= 4096 else 16


class _Norm(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor | None, eps: float, form: NormForm) -> Tensor:
        width = x.shape[-1]
        num_rows, columns = x.numel() // width, _power_of_two(width)
        rows = max(1, BLOCK // columns)
        dtype = torch.promote_types(x.dtype, weight.dtype) if weight is not None and form == "weight_after" else x.dtype
        y = torch.empty_like(x, dtype=dtype)
        scale = torch.empty(num_rows, dtype=torch.float32, device=x.device)
        ctx.save_for_backward(x, weight, scale)
        ctx.form, ctx.blocks = form, {"ROWS": rows, "COLUMNS": columns, "num_warps": _num_warps(rows * columns)}
        grid = (-(-num_rows // rows),)
        _kernels().norm_forward[grid](x, weight, y, scale, num_rows, width, eps, form, **ctx.blocks, **_EXACT)
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, scale = ctx.saved_tensors
        dy, width = gradients[0].contiguous(), x.shape[-1]
        num_rows, needs_dweight = len(scale), weight is not None and ctx.needs_input_grad[1]
        processors = torch.cuda.get_device_properties(x.device).multi_processor_count if x.is_cuda else 1
        grid = (min(-(-num_rows // ctx.blocks["ROWS"]), _PROGRAMS_PER_PROCESSOR * processors),)
        dx = torch.empty_like(x)
        parts = torch.empty(grid[0], width, dtype=torch.float32, device=x.device) if needs_dweight else None
        tensors = dy, x, weight, scale, dx, parts
        sizes = {**ctx.blocks, "HAS_DWEIGHT": needs_dweight}
        _kernels().norm_backward[grid](*tensors, num_rows, width, ctx.form, **sizes, **_EXACT)
        dweight = None if parts is None else parts.sum(0).to(weight.dtype)
        return dx, dweight, None, None


class _Rotary(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor, form: RotaryForm) -> Tensor:
        ctx.save_for_backward(cos, sin)
        ctx.form, ctx.dtype = form, x.dtype
        wide = torch.promote_types(torch.float32 if form.in_float32 else x.dtype, cos.dtype)
        dtype = x.dtype if form.keeps_dtype else wide
        return _turned(x, torch.empty_like(x, dtype=dtype), cos, sin, form, is_back=False)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (dy,), (cos, sin) = gradients, ctx.saved_tensors
        dy = dy if dy.stride(-1) == 1 else dy.contiguous()
        return _turned(dy, torch.empty_like(dy, dtype=ctx.dtype), cos, sin, ctx.form, is_back=True), None, None, None


def _turned(x: Tensor, y: Tensor, cos: Tensor, sin: Tensor, form: RotaryForm, *, is_back: bool) -> Tensor:
    """Fill `y` with what is turned, or turned back."""
    num_rows, num_heads, num_tokens, width = x.shape
    num_pairs = form.num_pairs(cos.shape[-1])
    num_kept = width - 2 * num_pairs
    given, made = (form.made, form.given) if is_back else (form.given, form.made)
    gaps = [num_pairs if pairs.gap is None else pairs.gap for pairs in (given, made, form.table)]
    rounds = not form.in_float32 and cos.dtype == x.dtype == y.dtype and x.dtype != torch.float32
    pairs = _power_of_two(num_pairs)
    heads = min(_power_of_two(num_heads), max(1, BLOCK // pairs))
    _kernels().turn[(num_rows * num_tokens, -(-num_heads // heads))](
        *(x, y, cos, sin, num_tokens, num_heads, num_pairs, num_kept),
        *(*x.stride()[:3], *y.stride()[:3], cos.stride(0) if len(cos) > 1 else 0, cos.stride(2), *gaps),
        *(given.step, made.step, form.table.step, rounds, is_back),
        *(heads, pairs, _power_of_two(num_kept) if num_kept else 0),
        **_EXACT,
    )
    return y


class _Gated(Function):
    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor, activation: Activation) -> Tensor:
        gate, up = gate.contiguous(), up.contiguous()
        ctx.save_for_backward(gate, up)
        ctx.activation = activation
        return _activated(gate, up, activation)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        gate, up = ctx.saved_tensors
        dgate, dup = torch.empty_like(gate), torch.empty_like(up)
        _fill_gradients(gradients[0], gate, up, dgate, dup, ctx.activation)
        return dgate, dup, None


class _GatedHalves(Function):
    @staticmethod
    def forward(ctx: Any, gate_up: Tensor, activation: Activation) -> Tensor:
        gate_up = gate_up.contiguous()
        ctx.save_for_backward(gate_up)
        ctx.activation = activation
        gate, up = gate_up.chunk(2, -1)
        return _activated(gate, up, activation)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gate_up,) = ctx.saved_tensors
        made = torch.empty_like(gate_up)
        (gate, up), (dgate, dup) = gate_up.chunk(2, -1), made.chunk(2, -1)
        _fill_gradients(gradients[0], gate, up, dgate, dup, ctx.activation)
        return made, None


def _row_stride(x: Tensor) -> int:
    """From one row to the next, of a tensor whose rows follow each other at equal distances."""
    return x.stride(-2) if x.ndim > 1 else x.numel()


def _grid(width: int, num_elements: int) -> tuple[tuple[int, int], list[int]]:
    """Programs for rows and for columns; and the rows and columns of each."""
    num_rows, columns = num_elements // width, min(BLOCK, _power_of_two(width))
    rows = BLOCK // columns
    return (-(-num_rows // rows), -(-width // columns)), [rows, columns]


def _activated(gate: Tensor, up: Tensor, activation: Activation) -> Tensor:
    y = torch.empty(gate.shape, dtype=gate.dtype, device=gate.device)
    width = gate.shape[-1]
    grid, block = _grid(width, gate.numel())
    sizes = [gate.numel() // width, width, _row_stride(gate), _row_stride(up)]
    _kernels().gate_forward[grid](gate, up, y, *sizes, activation, *block, **_EXACT)
    return y


def _fill_gradients(dy: Tensor, gate: Tensor, up: Tensor, dgate: Tensor, dup: Tensor, activation: Activation) -> None:
    tensors, width = [dy.contiguous(), gate, up, dgate, dup], gate.shape[-1]
    grid, block = _grid(width, gate.numel())
    sizes = [gate.numel() // width, width, *map(_row_stride, tensors)]
    _kernels().gate_backward[grid](*tensors, *sizes, activation, *block, **_EXACT)
