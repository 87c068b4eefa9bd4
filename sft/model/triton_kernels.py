"""The kernels in Triton: each reads its inputs once and computes in float32, rounding where `elementwise` does.

With `TRITON_INTERPRET=1` in the environment before triton is imported they run on the CPU, one program after another.
"""

import triton
import triton.language as tl


@triton.jit
def norm_forward(
    x_ptr,
    weight_ptr,
    y_ptr,
    scale_ptr,
    num_rows,
    width,
    eps,
    FORM: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Rows of `x` times 1 / root mean square and the weight. The scales are kept for the backward pass."""
    rows = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    columns = tl.arange(0, COLUMNS)
    at = rows[:, None] * width + columns[None, :]
    inside = (rows < num_rows)[:, None] & (columns < width)[None, :]
    x = tl.load(x_ptr + at, mask=inside, other=0.0).to(tl.float32)
    scale = tl.rsqrt(tl.sum(x * x, axis=1) / width + eps)
    tl.store(scale_ptr + rows, scale, mask=rows < num_rows)
    y = x * scale[:, None]
    if FORM != "no_weight":
        weight = tl.load(weight_ptr + columns, mask=columns < width, other=0.0).to(tl.float32)[None, :]
        if FORM == "one_plus_weight":
            weight += 1.0
        if FORM == "weight_after":
            y = y.to(x_ptr.dtype.element_ty).to(tl.float32)
        y = y * weight
    tl.store(y_ptr + at, y.to(y_ptr.dtype.element_ty), mask=inside)


@triton.jit
def norm_backward(
    dy_ptr,
    x_ptr,
    weight_ptr,
    scale_ptr,
    dx_ptr,
    dweight_ptr,
    num_rows,
    width,
    FORM: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    HAS_DWEIGHT: tl.constexpr,
):
    """The gradient of `x`, and each program's part of the weight's gradient, in float32: (programs, width).

    A program takes every n-th block of rows, so the weight's gradient is summed in the same order every time.
    """
    columns = tl.arange(0, COLUMNS)
    is_column = columns < width
    weight = tl.zeros((COLUMNS,), tl.float32) + 1.0
    if FORM != "no_weight":
        weight = tl.load(weight_ptr + columns, mask=is_column, other=0.0).to(tl.float32)
        if FORM == "one_plus_weight":
            weight += 1.0
    dweight = tl.zeros((COLUMNS,), tl.float32)
    for block in range(tl.program_id(0), tl.cdiv(num_rows, ROWS), tl.num_programs(0)):
        rows = tl.cast(block, tl.int64) * ROWS + tl.arange(0, ROWS)
        at = rows[:, None] * width + columns[None, :]
        inside = (rows < num_rows)[:, None] & is_column[None, :]
        dy = tl.load(dy_ptr + at, mask=inside, other=0.0).to(tl.float32)
        x = tl.load(x_ptr + at, mask=inside, other=0.0).to(tl.float32)
        scale = tl.load(scale_ptr + rows, mask=rows < num_rows, other=0.0)[:, None]
        normed = x * scale
        dnormed = dy * weight[None, :]
        if FORM == "weight_after":
            dnormed = dnormed.to(x_ptr.dtype.element_ty).to(tl.float32)
        mean = tl.sum(dnormed * normed, axis=1)[:, None] / width
        dx = scale * (dnormed - normed * mean)
        tl.store(dx_ptr + at, dx.to(dx_ptr.dtype.element_ty), mask=inside)
        if HAS_DWEIGHT:
            if FORM == "weight_after":
                normed = normed.to(x_ptr.dtype.element_ty).to(tl.float32)
            dweight += tl.sum(dy * normed, axis=0)
    if HAS_DWEIGHT:
        tl.store(dweight_ptr + tl.program_id(0).to(tl.int64) * width + columns, dweight, mask=is_column)


@triton.jit
def turn(
    x_ptr,
    y_ptr,
    cos_ptr,
    sin_ptr,
    num_tokens,
    num_heads,
    num_pairs,
    num_kept,
    x_row,
    x_head,
    x_token,
    y_row,
    y_head,
    y_token,
    table_row,
    table_token,
    x_gap,
    y_gap,
    table_gap,
    X_STEP: tl.constexpr,
    Y_STEP: tl.constexpr,
    TABLE_STEP: tl.constexpr,
    ROUNDS: tl.constexpr,
    BACK: tl.constexpr,
    HEADS: tl.constexpr,
    PAIRS: tl.constexpr,
    KEPT: tl.constexpr,
):
    """Pairs of elements of one token's heads, turned by its angles; `num_kept` elements behind them are copied.

    `BACK` turns them the other way, which is what the gradient needs: the sines change places and signs.
    """
    token = tl.program_id(0).to(tl.int64)
    row = token // num_tokens
    token = token % num_tokens
    heads = (tl.program_id(1) * HEADS + tl.arange(0, HEADS))[:, None].to(tl.int64)
    pairs = tl.arange(0, PAIRS)[None, :]
    is_pair = pairs < num_pairs
    inside = (heads < num_heads) & is_pair
    table = row * table_row + token * table_token + pairs * TABLE_STEP
    cos_a = tl.load(cos_ptr + table, mask=is_pair, other=0.0).to(tl.float32)
    cos_b = tl.load(cos_ptr + table + table_gap, mask=is_pair, other=0.0).to(tl.float32)
    sin_a = tl.load(sin_ptr + table, mask=is_pair, other=0.0).to(tl.float32)
    sin_b = tl.load(sin_ptr + table + table_gap, mask=is_pair, other=0.0).to(tl.float32)
    if BACK:
        swapped = sin_a
        sin_a = -sin_b
        sin_b = -swapped
    x_heads = x_ptr + row * x_row + token * x_token + heads * x_head
    y_heads = y_ptr + row * y_row + token * y_token + heads * y_head
    a = tl.load(x_heads + pairs * X_STEP, mask=inside, other=0.0).to(tl.float32)
    b = tl.load(x_heads + pairs * X_STEP + x_gap, mask=inside, other=0.0).to(tl.float32)
    a_cos = a * cos_a
    b_sin = b * sin_a
    b_cos = b * cos_b
    a_sin = a * sin_b
    if ROUNDS:
        a_cos = a_cos.to(x_ptr.dtype.element_ty).to(tl.float32)
        b_sin = b_sin.to(x_ptr.dtype.element_ty).to(tl.float32)
        b_cos = b_cos.to(x_ptr.dtype.element_ty).to(tl.float32)
        a_sin = a_sin.to(x_ptr.dtype.element_ty).to(tl.float32)
    tl.store(y_heads + pairs * Y_STEP, (a_cos - b_sin).to(y_ptr.dtype.element_ty), mask=inside)
    tl.store(y_heads + pairs * Y_STEP + y_gap, (b_cos + a_sin).to(y_ptr.dtype.element_ty), mask=inside)
    if KEPT > 0:
        kept = tl.arange(0, KEPT)[None, :]
        there = (heads < num_heads) & (kept < num_kept)
        values = tl.load(x_heads + 2 * num_pairs + kept, mask=there, other=0.0)
        tl.store(y_heads + 2 * num_pairs + kept, values.to(y_ptr.dtype.element_ty), mask=there)


@triton.jit
def _sigmoid(x):
    return 1.0 / (1.0 + tl.exp(-x))


@triton.jit
def _activate(x, ACTIVATION: tl.constexpr):
    if ACTIVATION == "silu":
        active = x / (1.0 + tl.exp(-x))
    else:
        # (1 + tanh(z)) / 2 is the sigmoid of 2 z.
        active = x * _sigmoid(1.5957691216057308 * (x + 0.044715 * x * x * x))
    return active


@triton.jit
def _slope(x, ACTIVATION: tl.constexpr):
    if ACTIVATION == "silu":
        s = _sigmoid(x)
        slope = s * (1.0 + x * (1.0 - s))
    else:
        s = _sigmoid(1.5957691216057308 * (x + 0.044715 * x * x * x))
        slope = s + x * s * (1.0 - s) * 1.5957691216057308 * (1.0 + 0.134145 * x * x)
    return slope


@triton.jit
def _part(num_rows, width, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    rows = (tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS))[:, None]
    columns = (tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS))[None, :]
    return rows, columns, (rows < num_rows) & (columns < width)


@triton.jit
def gate_forward(
    gate_ptr,
    up_ptr,
    y_ptr,
    num_rows,
    width,
    gate_row,
    up_row,
    ACTIVATION: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """The activated gate times `up`: a part of some rows."""
    rows, columns, inside = _part(num_rows, width, ROWS, COLUMNS)
    gate = tl.load(gate_ptr + rows * gate_row + columns, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(up_ptr + rows * up_row + columns, mask=inside, other=0.0).to(tl.float32)
    active = _activate(gate, ACTIVATION).to(y_ptr.dtype.element_ty).to(tl.float32)
    tl.store(y_ptr + rows * width + columns, (active * up).to(y_ptr.dtype.element_ty), mask=inside)


@triton.jit
def gate_backward(
    dy_ptr,
    gate_ptr,
    up_ptr,
    dgate_ptr,
    dup_ptr,
    num_rows,
    width,
    dy_row,
    gate_row,
    up_row,
    dgate_row,
    dup_row,
    ACTIVATION: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """The gradients of both, a part of some rows. The activated gate is computed again."""
    rows, columns, inside = _part(num_rows, width, ROWS, COLUMNS)
    dy = tl.load(dy_ptr + rows * dy_row + columns, mask=inside, other=0.0).to(tl.float32)
    gate = tl.load(gate_ptr + rows * gate_row + columns, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(up_ptr + rows * up_row + columns, mask=inside, other=0.0).to(tl.float32)
    active = _activate(gate, ACTIVATION).to(dgate_ptr.dtype.element_ty).to(tl.float32)
    dactive = (dy * up).to(dgate_ptr.dtype.element_ty).to(tl.float32)
    tl.store(dup_ptr + rows * dup_row + columns, (dy * active).to(dgate_ptr.dtype.element_ty), mask=inside)
    tl.store(
        dgate_ptr + rows * dgate_row + columns,
        (dactive * _slope(gate, ACTIVATION)).to(dgate_ptr.dtype.element_ty),
        mask=inside,
    )
