"""Which part of a layer a module is, found by what it computes: by its results on random inputs, never by its name.

A part is a form of `sft.model.elementwise` if its results are that form's to the bit, and its gradients to rounding,
for inputs small, large and in between. For anything else there is no answer, and it stays as it is.
"""

from collections.abc import Callable, Iterator, Mapping
from itertools import permutations
from types import FunctionType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from sft.data.rendering.chat_template import RAISED_BY_CODE
from sft.model import elementwise
from sft.model.elementwise import ACTIVATIONS, NORM_FORMS, ROTARY_FORMS, Activation, NormForm, RotaryForm
from sft.model.stand_ins import SCALES, as_tensors, is_same, random_tensor, shape_of, small_linear, stand_in

_WIDTH = 32
"""Of the input of a norm without a weight, which may have any."""
_HIDDEN, _MIDDLE = 8, 12
"""The widths of the linear layers that stand in for those of a gated MLP."""
_HEAD, _TOKENS = 16, 5


class Norm(NamedTuple):
    """A root-mean-square norm."""

    form: NormForm
    eps: float
    weight: str | None
    """The parameter's name."""
    dtypes: tuple[torch.dtype, ...]
    """Of the inputs for which this is proven."""


class Rotation(NamedTuple):
    """A function that turns queries and keys, or one tensor: (tensors, cosines, sines) → tensors."""

    form: RotaryForm
    num_tensors: int
    dtypes: frozenset[tuple[torch.dtype, torch.dtype]]
    """Of input and tables, for which this is proven."""
    turns_all: bool
    """Whether the tables may be for all elements of a head."""
    turns_part: bool
    """Whether the tables may be for the first elements of a head."""


class Gate(NamedTuple):
    """A gated MLP: its activation, and the names of its linear layers."""

    activation: Activation
    gate: str
    """Without `up`: of the layer whose result holds both, gate first."""
    up: str | None
    down: str


def dtypes_in(dtype: torch.dtype) -> tuple[torch.dtype, ...]:
    """What inputs in a model of that dtype may have: some keep the residual stream or the tables in float32."""
    return (dtype,) if dtype == torch.float32 else (dtype, torch.float32)


def as_norm(module: nn.Module, dtype: torch.dtype) -> Norm | None:
    """The norm that a module is; None if it is none, or another one."""
    parameters = {name: p for name, p in module._parameters.items() if p is not None}
    if module._modules or module._buffers or len(parameters) > 1:
        return None
    if any(len(shape_of(p)) != 1 for p in parameters.values()):
        return None
    weights = {n: 1.0 + random_tensor("weight", shape_of(p), p.dtype, 0.3) for n, p in parameters.items()}
    twin = stand_in(module, weights)
    for form in NORM_FORMS[:-1] if parameters else NORM_FORMS[-1:]:
        for eps in sorted({value for value in vars(module).values() if type(value) is float}):
            dtypes = tuple(each for each in dtypes_in(dtype) if _is_norm(twin, weights, form, eps, each))
            if dtype in dtypes:
                return Norm(form, eps, next(iter(parameters), None), dtypes)
    return None


def _is_norm(twin: nn.Module, weights: Mapping[str, Tensor], form: NormForm, eps: float, dtype: torch.dtype) -> bool:
    width = next((len(weight) for weight in weights.values()), _WIDTH)

    def found(x: Tensor, *weight: Tensor) -> Any:
        # The very tensors, so that they get their gradients.
        vars(twin)["_parameters"] = dict(zip(weights, weight, strict=True))
        forward: Any = type(twin).forward
        return forward(twin, x)

    def expected(x: Tensor, weight: Tensor | None = None) -> Tensor:
        return elementwise.norm(x, weight, eps, form)

    inputs = (random_tensor("x", (3, 2, width), dtype, scale) for scale in SCALES)
    return all(is_same(found, expected, [x, *weights.values()]) for x in inputs)


def as_rotation(function: Any, dtype: torch.dtype) -> Rotation | None:
    """The rotation that a function of a modelling module is; None if it is none that is known."""
    if not isinstance(function, FunctionType):
        return None
    for num_tensors in (2, 1):
        cases = list(_rotary_cases(function, num_tensors, dtype))
        for form in ROTARY_FORMS if cases else ():
            if all(_is_rotation(function, form, case) for case in cases):
                parts = {2 * form.num_pairs(case.cos.shape[-1]) < _HEAD for case in cases}
                dtypes = frozenset((case.xs[0].dtype, case.cos.dtype) for case in cases)
                return Rotation(form, num_tensors, dtypes, False in parts, True in parts)
    return None


class _RotaryCase(NamedTuple):
    xs: tuple[Tensor, ...]
    cos: Tensor
    sin: Tensor
    heads_at: int
    """Which dimension of the tensors the heads are."""


def _rotary_cases(function: Callable[..., Any], num_tensors: int, dtype: torch.dtype) -> Iterator[_RotaryCase]:
    """The inputs that the function takes: tables for all elements or half of them, and heads in either place."""
    for x_dtype in dtypes_in(dtype):
        for table_dtype in dtypes_in(dtype):
            for width in (_HEAD, _HEAD // 2):
                for heads_at in (1, 2):
                    shapes = [(2, _TOKENS, heads, _HEAD) for heads in (4, 3)[:num_tensors]]
                    given = (random_tensor(f"heads {shape[2]}", shape, x_dtype) for shape in shapes)
                    xs = tuple(x.transpose(1, 2) if heads_at == 1 else x for x in given)
                    cos, sin = (random_tensor(label, (1, _TOKENS, width), table_dtype) for label in ("cos", "sin"))
                    try:
                        as_tensors(function(*xs, cos, sin, unsqueeze_dim=heads_at))
                    except RAISED_BY_CODE:
                        continue
                    yield _RotaryCase(xs, cos, sin, heads_at)


def _is_rotation(function: Callable[..., Any], form: RotaryForm, case: _RotaryCase) -> bool:
    cos, sin = (table.unsqueeze(case.heads_at) for table in (case.cos, case.sin))
    if 2 * form.num_pairs(cos.shape[-1]) > _HEAD:
        return False
    return is_same(
        lambda *xs: function(*xs, case.cos, case.sin, unsqueeze_dim=case.heads_at),
        lambda *xs: tuple(elementwise.rotary(x, cos, sin, form) for x in xs),
        case.xs,
    )


def as_gate(module: nn.Module) -> Gate | None:
    """The gated MLP that a module is; None if it is none, or does more."""
    children = {name: child for name, child in module._modules.items() if child is not None}
    linears = {name: child for name, child in children.items() if type(child) is nn.Linear}
    others = [child for name, child in children.items() if name not in linears]
    if len(linears) not in (2, 3) or len(others) > 1 or any(_holds_anything(other) for other in others):
        return None
    if any(part is not None for part in (*module._parameters.values(), *module._buffers.values())):
        return None
    for names in permutations(linears):
        firsts, down = names[:-1], names[-1]
        made = len(firsts) % 2 + 1  # results in that of the first layer: two if there is only one such layer
        if any(linears[name].out_features != made * linears[down].in_features for name in firsts):
            continue
        small = {name: small_linear(linears[name], name, _HIDDEN, made * _MIDDLE) for name in firsts}
        small[down] = small_linear(linears[down], down, _MIDDLE, _HIDDEN)
        for activation in ACTIVATIONS:
            gate = Gate(activation, names[0], names[1] if len(firsts) == 2 else None, down)
            if _is_gate(stand_in(module, {}, small), gate):
                return gate
    return None


def _holds_anything(module: nn.Module) -> bool:
    return bool(module._modules or module._parameters or module._buffers or isinstance(module, nn.Dropout))


def _is_gate(twin: nn.Module, gate: Gate) -> bool:
    forward: Any = type(twin).forward
    dtype = twin.get_parameter(f"{gate.down}.weight").dtype
    inputs = (random_tensor("x", (3, 2, _HIDDEN), dtype, scale) for scale in SCALES)
    return all(is_same(lambda x: forward(twin, x), lambda x: apply_gate(twin, gate, x), [x]) for x in inputs)


def apply_gate(
    module: nn.Module,
    gate: Gate,
    x: Tensor,
    gated: Callable[[Tensor, Tensor, Activation], Tensor] = elementwise.gated,
    gated_halves: Callable[[Tensor, Activation], Tensor] = elementwise.gated_halves,
) -> Tensor:
    """What such an MLP computes. Its linear layers are called, so that whatever is hooked to them runs."""
    layers: Mapping[str, Any] = module._modules
    first = layers[gate.gate](x)
    middle = (
        gated_halves(first, gate.activation) if gate.up is None else gated(first, layers[gate.up](x), gate.activation)
    )
    made: Tensor = layers[gate.down](middle)
    return made


def as_expert_gate(module: nn.Module, dtype: torch.dtype) -> Activation | None:
    """The activation in the gate of experts that transformers computes together; None if it is another gate."""
    method: Any = getattr(type(module), "_apply_gate", None)
    if not isinstance(method, FunctionType):
        return None
    inputs = [random_tensor("gate and up", (3, 2 * _MIDDLE), dtype, scale) for scale in SCALES]

    def has(activation: Activation) -> bool:
        return all(
            is_same(lambda x: method(module, x), lambda x: elementwise.gated_halves(x, activation), [x]) for x in inputs
        )

    return next(filter(has, ACTIVATIONS), None)
