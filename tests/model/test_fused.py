"""Each kernel against its definition, through Triton's interpreter, and its gradients against float64.

The interpreter cuts bfloat16 off where a GPU rounds it. So the places of the roundings are shown with float16, for
which both round alike: there nothing but the order of a sum may differ.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from sft.model import elementwise, fused
from sft.model.elementwise import ACTIVATIONS, NORM_FORMS, ROTARY_FORMS, Activation, NormForm, RotaryForm
from sft.model.stand_ins import random_tensor

EXACT = {torch.float32: 2e-6, torch.float16: 1.1e-3, torch.bfloat16: 1.6e-2}
"""By how much two results of a few operations may differ: float32's rounding, and one of the last bit of the others."""


def run(function: Callable[..., Tensor], inputs: list[Tensor]) -> list[Tensor]:
    """The result, and the gradients of the inputs."""
    given = [x.clone().requires_grad_() for x in inputs]
    made = function(*given)
    return [made.detach(), *torch.autograd.grad(made, given, random_tensor("dy", made.shape, made.dtype))]


def off(found: Tensor, expected: Tensor) -> float:
    """The largest difference, as a share of the largest value."""
    assert found.dtype == expected.dtype or expected.dtype == torch.float64
    assert found.shape == expected.shape
    return float((found.double() - expected.double()).abs().max() / expected.double().abs().max())


def check(kernel: Callable[..., Tensor], definition: Callable[..., Tensor], inputs: list[Tensor]) -> None:
    assert fused.runs_on(*inputs), "the kernels run here, through Triton's interpreter"
    for found, expected in zip(run(kernel, inputs), run(definition, inputs), strict=True):
        assert off(found, expected) <= EXACT[inputs[0].dtype]


@pytest.mark.parametrize("dtype", EXACT)
@pytest.mark.parametrize("form", NORM_FORMS)
def test_a_norm_is_its_definition(form: NormForm, dtype: torch.dtype) -> None:
    x, weight = random_tensor("x", (2, 3, 5, 48), dtype), 1 + random_tensor("w", (48,), dtype, 0.3)
    inputs = [x.transpose(1, 2)] if form == "no_weight" else [x.transpose(1, 2), weight]
    check(
        lambda x, *w: fused.norm(x, *(w or (None,)), 1e-5, form),
        lambda x, *w: elementwise.norm(x, *(w or (None,)), 1e-5, form),
        inputs,
    )


def test_a_norm_keeps_the_order_of_memory_and_the_weights_wider_dtype() -> None:
    x, weight = (
        random_tensor("x", (2, 5, 3, 48), torch.float16).transpose(1, 2),
        random_tensor("w", (48,), torch.float32),
    )
    made = fused.norm(x, weight, 1e-5, "weight_after")
    assert (made.stride(), made.dtype) == (x.stride(), torch.float32)
    assert off(made, elementwise.norm(x, weight, 1e-5, "weight_after")) < 1e-3


ROTATED = [form for form in ROTARY_FORMS if not form.in_float32 and not form.keeps_dtype] + list(ROTARY_FORMS[1:3])
"""Each layout; and each place of the rounding."""


@pytest.mark.parametrize(("dtype", "table_dtype"), [(torch.float16, torch.float16), (torch.float16, torch.float32)])
@pytest.mark.parametrize("form", ROTATED)
def test_a_rotary_embedding_is_its_definition(form: RotaryForm, dtype: torch.dtype, table_dtype: torch.dtype) -> None:
    width = 6 if form.has_half_table else 12
    cos, sin = (random_tensor(name, (1, 1, 2, width), table_dtype) for name in ("cos", "sin"))
    x = random_tensor("x", (1, 2, 3, 16), dtype).transpose(1, 2)
    check(lambda x: fused.rotary(x, cos, sin, form), lambda x: elementwise.rotary(x, cos, sin, form), [x])


# Where the exponential is infinite, its reciprocal is 0, as it should be.
@pytest.mark.filterwarnings("ignore:overflow encountered in exp:RuntimeWarning")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_gate_is_its_definition(activation: Activation, dtype: torch.dtype) -> None:
    gate, up = random_tensor("gate", (2, 3, 35), dtype, 4.0), random_tensor("up", (2, 3, 35), dtype)
    check(lambda *x: fused.gated(*x, activation), lambda *x: elementwise.gated(*x, activation), [gate, up])
    both = torch.cat([gate, up], -1)
    check(lambda x: fused.gated_halves(x, activation), lambda x: elementwise.gated_halves(x, activation), [both])


# ---------------------------------------------------------------- the exact gradients


def exact_norm(x: Tensor, weight: Tensor) -> Tensor:
    return x / torch.sqrt((x * x).mean(-1, keepdim=True) + 1e-5) * weight


def exact_silu(gate: Tensor, up: Tensor) -> Tensor:
    return gate / (1 + torch.exp(-gate)) * up


@pytest.mark.parametrize(
    ("kernel", "definition", "exact", "shapes"),
    [
        (
            lambda x, w: fused.norm(x, w, 1e-5, "weight_after"),
            lambda x, w: elementwise.norm(x, w, 1e-5, "weight_after"),
            exact_norm,
            [(70, 96), (96,)],
        ),
        (
            lambda g, u: fused.gated(g, u, "silu"),
            lambda g, u: elementwise.gated(g, u, "silu"),
            exact_silu,
            [(4, 96), (4, 96)],
        ),
    ],
)
def test_gradients_are_as_close_to_the_exact_ones_as_those_of_the_definition(
    kernel: Any, definition: Any, exact: Any, shapes: list[tuple[int, ...]]
) -> None:
    for dtype in (torch.float32, torch.float16):
        inputs = [random_tensor(f"input {i}", shape, dtype) for i, shape in enumerate(shapes)]
        expected = run(lambda *x, dtype=dtype: exact(*x).to(dtype), [x.double() for x in inputs])
        for found, defined, true in zip(run(kernel, inputs), run(definition, inputs), expected, strict=True):
            assert off(found, true) <= 1.5 * off(defined, true) + 1e-7


# ---------------------------------------------------------------- where no kernel runs


def test_what_the_kernels_do_not_take_is_computed_by_the_definition() -> None:
    x = random_tensor("x", (3, 40), torch.float32)
    for given in (x.double(), x[:0], x.T, x[:, ::2]):
        assert torch.equal(fused.norm(given, None, 1e-5, "no_weight"), elementwise.norm(given, None, 1e-5, "no_weight"))
    for given in (x.double(), x[:0]):
        assert torch.equal(fused.gated_halves(given, "silu"), elementwise.gated_halves(given, "silu"))
