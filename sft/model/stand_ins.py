"""A module's own forward, tried on random numbers on the CPU: with random weights of its shapes in place of its own.

The real weights may lie split on other ranks. No hook runs, and torch's random state stays as it is.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from zlib import crc32

import torch
from torch import Tensor, nn

from sft.data.rendering.chat_template import RAISED_BY_CODE

Function = Callable[..., Any]
SCALES = (1e-3, 1.0, 40.0, 3000.0)
"""Of the inputs. With the smallest a norm's epsilon counts; the larger ones are beyond where some gates are cut off."""

_ROUNDING = {torch.float32: 2e-5, torch.bfloat16: 4e-2, torch.float16: 4e-3}
"""By how much results may differ that are equal but for rounding, as a share of the largest of them."""
_REASON_CHARS = 240


def random_tensor(label: str, shape: Sequence[int], dtype: torch.dtype, scale: float = 1.0) -> Tensor:
    """Normally distributed numbers, the same each time for the same label."""
    generator = torch.Generator().manual_seed(crc32(label.encode()))
    return (torch.randn(*shape, generator=generator, device="cpu") * scale).to(dtype)


def stand_in(module: nn.Module, parameters: Mapping[str, Tensor], children: Mapping[str, nn.Module] = {}) -> nn.Module:
    """A module of the same class and settings with these parameters, and these among its children."""
    twin = copy.copy(module)
    made = {name: nn.Parameter(value) for name, value in parameters.items()}
    twin.__dict__ = {
        **vars(module),
        "_parameters": {**module._parameters, **made},
        "_modules": {**module._modules, **children},
    }
    return twin


def small_linear(like: nn.Linear, label: str, in_features: int, out_features: int) -> nn.Linear:
    """A linear layer of other widths, with a bias if the given one has it."""
    small = nn.Linear(in_features, out_features, bias=like.bias is not None, device="meta", dtype=like.weight.dtype)
    small.weight = nn.Parameter(random_tensor(label, (out_features, in_features), like.weight.dtype, in_features**-0.5))
    if like.bias is not None:
        small.bias = nn.Parameter(random_tensor(f"{label} bias", (out_features,), like.weight.dtype))
    return small


def shape_of(parameter: Any) -> tuple[int, ...]:
    """The whole parameter's shape, also where ZeRO-3 has split it."""
    return tuple(getattr(parameter, "ds_shape", parameter.shape))


def state_of(module: nn.Module) -> tuple[Any, ...]:
    """What decides how a module behaves, as a key: its class, settings, shapes and children."""
    settings = tuple(
        (name, value if isinstance(value, int | float | str | None) else id(value))
        for name, value in sorted(vars(module).items())
        if not name.startswith("_") and name != "layer_idx"
    )
    shapes = tuple((name, p if p is None else (shape_of(p), p.dtype)) for name, p in module._parameters.items())
    children = tuple((name, None if child is None else state_of(child)) for name, child in module._modules.items())
    return type(module), settings, shapes, children, tuple(module._buffers)


def is_same(found: Function, expected: Function, inputs: Sequence[Tensor]) -> bool:
    """Whether nothing is different; see `difference`."""
    return difference(found, expected, inputs) is None


def difference(found: Function, expected: Function, inputs: Sequence[Tensor], *, to_the_bit: bool = True) -> str | None:
    """How results and, by more than rounding, gradients of all inputs differ, in one line; None if they do not.

    Args:
        found: gives a tensor or several. What it raises is a difference.
        expected: the same.
        inputs: what both are called with.
        to_the_bit: whether the results have to be equal to the bit, or to rounding.
    """
    try:
        results, gradients = _run(found, inputs)
        results_expected, gradients_expected = _run(expected, inputs)
    except RAISED_BY_CODE as error:
        return f"{type(error).__name__}: {' '.join(str(error).split())}"[:_REASON_CHARS]
    if [(x.dtype, x.shape) for x in results] != [(x.dtype, x.shape) for x in results_expected]:
        return "its results have another shape or dtype"
    is_equal = torch.equal if to_the_bit else _is_close
    if not all(map(is_equal, results, results_expected)):
        return "its results differ"
    return None if all(map(_is_close, gradients, gradients_expected)) else "its gradients differ"


def as_tensors(result: Any) -> tuple[Tensor, ...]:
    """The tensors that a function gives.

    Raises:
        TypeError: it gives anything else.
    """
    made = result if isinstance(result, tuple) else (result,)
    if not all(isinstance(x, Tensor) for x in made):
        raise TypeError("a tensor was expected")
    return made


def _run(function: Function, inputs: Sequence[Tensor]) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    with torch.enable_grad():
        given = [x.detach().clone(memory_format=torch.preserve_format).requires_grad_() for x in inputs]
        made = as_tensors(function(*given))
        seeds = [random_tensor(f"gradient {i}", x.shape, x.dtype).to(x.device) for i, x in enumerate(made)]
        gradients = torch.autograd.grad(made, given, seeds)
    return tuple(x.detach() for x in made), gradients


def _is_close(one: Tensor, other: Tensor) -> bool:
    most = float(other.abs().max())
    return bool((one.double() - other.double()).abs().max() <= _ROUNDING[other.dtype] * most)
