"""Puts fused kernels into a loaded model: `model.kernels`.

A part of a layer gets one only if two things are proven when the model is loaded. Its own forward is, to the bit, a
form of `sft.model.elementwise` (see `recognition`); and the kernel gives the results and gradients of that form on the
very device, to rounding. Everything else stays as it is.

The kernel becomes the forward of each module, which keeps its class, its hooks and its weights: so ZeRO-3 gathers them
as before, a layer may be a leaf for it, and activations may be checkpointed.
"""

from collections import Counter
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from types import FunctionType, MethodType
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from sft.config import ModelConfig
from sft.errors import UserError
from sft.model import elementwise, fused
from sft.model.elementwise import Activation, NormForm, RotaryForm
from sft.model.liger import liger_gated, liger_gated_halves, liger_norm, refuse_without_liger
from sft.model.recognition import (
    Gate,
    Norm,
    Rotation,
    apply_gate,
    as_expert_gate,
    as_gate,
    as_norm,
    as_rotation,
)
from sft.model.stand_ins import difference, random_tensor, shape_of, state_of
from sft.model.text_path import text_decoder

T = TypeVar("T")
_PLACES = ("forward", "_apply_gate")
_FAILED = "failed_proofs_of_kernels"
_HEADS, _HEAD, _TOKENS, _MIDDLE = 4, 64, 96, 192


class Kernels(NamedTuple):
    """Functions with the results of those of the same names in `elementwise`."""

    norm: Callable[[Tensor, Tensor | None, float, NormForm], Tensor]
    rotary: Callable[[tuple[Tensor, ...], Tensor, Tensor, RotaryForm], tuple[Tensor, ...]]
    """Of queries and keys, or of one tensor: each (B, H, T, D); the tables (B or 1, 1, T, W)."""
    gated: Callable[[Tensor, Tensor, Activation], Tensor]
    gated_halves: Callable[[Tensor, Activation], Tensor]


def _fused_rotary(xs: tuple[Tensor, ...], cos: Tensor, sin: Tensor, form: RotaryForm) -> tuple[Tensor, ...]:
    return tuple(fused.rotary(x, cos, sin, form) for x in xs)


def _defined_rotary(xs: tuple[Tensor, ...], cos: Tensor, sin: Tensor, form: RotaryForm) -> tuple[Tensor, ...]:
    return tuple(elementwise.rotary(x, cos, sin, form) for x in xs)


DEFINITIONS = Kernels(elementwise.norm, _defined_rotary, elementwise.gated, elementwise.gated_halves)
OURS = Kernels(fused.norm, _fused_rotary, fused.gated, fused.gated_halves)
LIGER = Kernels(liger_norm, _fused_rotary, liger_gated, liger_gated_halves)


def apply_kernels(model: Any, config: ModelConfig, device: torch.device) -> None:
    """Put the kernels that the config asks for into a model, before an engine gets it and after dropout is settled.

    `auto` changes nothing without a GPU.

    Args:
        model: the model; its parameters may be split already.
        config: `model.kernels` is read.
        device: where it will run.

    Raises:
        UserError: Liger is asked for, and is not here, or has nothing for this model.
    """
    on_gpu = device.type == "cuda"
    if config.kernels == "liger":
        refuse_without_liger(on_gpu)
        fuse(model, LIGER, device)
        if not count_kernels(model):
            failed = failed_proofs(model)
            raise UserError(
                f"model.kernels: Liger has no kernel for the norms, rotary embeddings and gates of "
                f"{type(model).__name__} that gives the same results{': ' if failed else ''}{'; '.join(failed)}. "
                "Set model.kernels=auto."
            )
    elif config.kernels == "auto" and on_gpu:
        if fused.HAS_TRITON:
            fuse(model, OURS, device)
        else:
            setattr(model, _FAILED, ("Triton is not installed",))


def fuse(model: Any, kernels: Kernels, device: torch.device) -> None:
    """Put these kernels into every part of the text's path that is known; see `apply_kernels`."""
    dtype, known = model.dtype, _Known(kernels, device, model.dtype)
    for module in text_decoder(model).modules():
        if "forward" in vars(module):
            continue  # already another one's
        if norm := known.norm(module):
            _put(module, "forward", "norm", _norm_forward(norm, type(module).forward, kernels))
        elif gate := known.gate(module):
            _put(module, "forward", "gated MLP", _gate_forward(gate, dtype, type(module).forward, kernels))
        elif activation := known.expert_gate(module):
            _put(module, "_apply_gate", "gate of experts", _expert_gate(activation, dtype, type(module), kernels))
        elif turned := known.turned_forward(module):
            _put(module, "forward", "rotary", turned)
    setattr(model, _FAILED, tuple(known.failed))


def count_kernels(model: nn.Module) -> Counter[str]:
    """How many modules have which kernel."""
    return Counter(kind for module in model.modules() if (kind := _kernel_of(module)))


def failed_proofs(model: nn.Module) -> tuple[str, ...]:
    """Why parts of known forms got no kernel on this device, each in one line."""
    failed: tuple[str, ...] = getattr(model, _FAILED, ())
    return failed


@contextmanager
def without_kernels(model: nn.Module) -> Iterator[None]:
    """Let all modules of `model` use their own forward until the block ends."""
    taken = [(module, _take(module)) for module in model.modules() if _kernel_of(module)]
    try:
        yield
    finally:
        for module, parts in taken:
            vars(module).update(parts)


def _take(module: nn.Module) -> dict[str, Any]:
    return {name: vars(module).pop(name) for name in _PLACES if name in vars(module)}


def _put(module: nn.Module, place: str, kind: str, function: Any) -> None:
    function.kernel = kind
    vars(module)[place] = MethodType(function, module)


def _kernel_of(module: nn.Module) -> str | None:
    found = (getattr(vars(module).get(place), "kernel", None) for place in _PLACES)
    return next((kind for kind in found if kind), None)


class _Known:
    """What was found out about modules and functions: once for all that are alike."""

    def __init__(self, kernels: Kernels, device: torch.device, dtype: torch.dtype) -> None:
        self._kernels, self._device, self._dtype = kernels, device, dtype
        self._found: dict[Hashable, Any] = {}
        self.failed: dict[str, None] = {}
        """Why kernels for known forms were not proven, in the order of the modules."""

    def norm(self, module: nn.Module) -> Norm | None:
        return self._once(("norm", state_of(module)), lambda: self._proven_norm(module))

    def gate(self, module: nn.Module) -> Gate | None:
        return self._once(("gate", state_of(module)), lambda: self._proven_gate(as_gate(module)))

    def expert_gate(self, module: nn.Module) -> Activation | None:
        if not hasattr(module, "_apply_gate"):
            return None
        key = "experts", state_of(module)
        return self._once(key, lambda: self._proven_halves(as_expert_gate(module, self._dtype)))

    def turned_forward(self, module: nn.Module) -> FunctionType | None:
        """The forward of a module's class with kernels where it calls functions that turn queries and keys."""
        forward: Any = type(module).forward
        return self._once(("rotary", forward), lambda: self._turned_forward(forward))

    def _once(self, key: Hashable, find: Callable[[], T]) -> T:
        if key not in self._found:
            self._found[key] = find()
        found: T = self._found[key]
        return found

    def _proven_norm(self, module: nn.Module) -> Norm | None:
        norm = as_norm(module, self._dtype)
        if norm is None:
            return None
        weights = [] if norm.weight is None else [module._parameters[norm.weight]]
        shapes = [(shape_of(p), p.dtype) for p in weights if p is not None]
        width = shapes[0][0][0] if shapes else _HEAD
        given = [random_tensor("x", (_TOKENS, width), self._dtype)]
        given += [1.0 + random_tensor("weight", shape, dtype, 0.3) for shape, dtype in shapes]

        def run(function: Any) -> Callable[..., Tensor]:
            return lambda x, weight=None: function(x, weight, norm.eps, norm.form)

        return norm if self._agree("norm", run(self._kernels.norm), run(elementwise.norm), given) else None

    def _proven_gate(self, gate: Gate | None) -> Gate | None:
        if gate is None or gate.up is None:
            return gate if gate and self._proven_halves(gate.activation) else None
        given = [random_tensor(label, (_TOKENS, _MIDDLE), self._dtype, 3.0) for label in ("gate", "up")]
        is_proven = self._agree(
            "gated MLP",
            lambda x, up: self._kernels.gated(x, up, gate.activation),
            lambda x, up: elementwise.gated(x, up, gate.activation),
            given,
        )
        return gate if is_proven else None

    def _proven_halves(self, activation: Activation | None) -> Activation | None:
        if activation is None:
            return None
        is_proven = self._agree(
            "gate",
            lambda x: self._kernels.gated_halves(x, activation),
            lambda x: elementwise.gated_halves(x, activation),
            [random_tensor("gate and up", (_TOKENS, 2 * _MIDDLE), self._dtype, 3.0)],
        )
        return activation if is_proven else None

    def _turned_forward(self, forward: Any) -> FunctionType | None:
        if not isinstance(forward, FunctionType) or hasattr(forward, "__wrapped__"):
            return None
        turns = {}
        for name in forward.__code__.co_names:
            function = forward.__globals__.get(name) if "rotary" in name else None
            if function is not None and (rotation := self._rotation(function)):
                turns[name] = _turn(function, rotation, self._kernels)
        if not turns:
            return None
        # The same code with other functions under these names: other models of the class keep theirs.
        copied = FunctionType(
            forward.__code__,
            {**forward.__globals__, **turns},
            forward.__name__,
            forward.__defaults__,
            forward.__closure__,
        )
        copied.__kwdefaults__ = forward.__kwdefaults__
        return copied

    def _rotation(self, function: Any) -> Rotation | None:
        return self._once(("turn", function), lambda: self._proven_rotation(as_rotation(function, self._dtype)))

    def _proven_rotation(self, rotation: Rotation | None) -> Rotation | None:
        if rotation is None:
            return None
        form, num = rotation.form, rotation.num_tensors
        width = _HEAD if rotation.turns_all else _HEAD // 2
        width = width // 2 if form.has_half_table else width

        def run(function: Any, tables: list[Tensor]) -> Callable[..., Any]:
            return lambda *xs: function(xs, *tables, form)

        for x_dtype, table_dtype in sorted(rotation.dtypes, key=str):
            shapes = [(1, _TOKENS, heads, _HEAD) for heads in (_HEADS, _HEADS // 2)[:num]]
            xs = [random_tensor(f"heads {shape[2]}", shape, x_dtype).transpose(1, 2) for shape in shapes]
            tables = [random_tensor(n, (1, 1, _TOKENS, width), table_dtype).to(self._device) for n in ("cos", "sin")]
            if not self._agree("rotary", run(self._kernels.rotary, tables), run(_defined_rotary, tables), xs):
                return None
        return rotation

    def _agree(
        self, part: str, kernel: Callable[..., Any], definition: Callable[..., Any], inputs: list[Tensor]
    ) -> bool:
        """Whether a kernel has the results and gradients of a definition on the device, to rounding."""
        why = difference(kernel, definition, [x.to(self._device) for x in inputs], to_the_bit=False)
        if why is not None:
            self.failed[f"{part}: {why}"] = None
        return why is None


def _norm_forward(norm: Norm, own: Any, kernels: Kernels) -> Any:
    form, eps, name, dtypes = norm.form, norm.eps, norm.weight, norm.dtypes

    def forward(self: nn.Module, *given: Any, **options: Any) -> Any:
        if len(given) != 1 or options or given[0].dtype not in dtypes:
            return own(self, *given, **options)
        return kernels.norm(given[0], None if name is None else getattr(self, name), eps, form)

    return forward


def _gate_forward(gate: Gate, dtype: torch.dtype, own: Any, kernels: Kernels) -> Any:
    def forward(self: nn.Module, *given: Any, **options: Any) -> Any:
        if len(given) != 1 or options or given[0].dtype != dtype:
            return own(self, *given, **options)
        return apply_gate(self, gate, given[0], kernels.gated, kernels.gated_halves)

    return forward


def _expert_gate(activation: Activation, dtype: torch.dtype, cls: Any, kernels: Kernels) -> Any:
    def apply(self: nn.Module, gate_up: Tensor) -> Any:
        return kernels.gated_halves(gate_up, activation) if gate_up.dtype == dtype else cls._apply_gate(self, gate_up)

    return apply


def _turn(own: Any, rotation: Rotation, kernels: Kernels) -> Any:
    """A function that is called as `own` is, and calls it wherever it is not known to do the same."""
    form, num = rotation.form, rotation.num_tensors

    def turn(*given: Any, unsqueeze_dim: int = 1, **options: Any) -> Any:
        if len(given) != num + 2 or options or not _is_proven(given, unsqueeze_dim):
            return own(*given, unsqueeze_dim=unsqueeze_dim, **options)
        xs, (cos, sin) = given[:num], (table.unsqueeze(1) for table in given[num:])
        if unsqueeze_dim == 1:
            made = kernels.rotary(xs, cos, sin, form)
        else:
            turned = kernels.rotary(tuple(x.transpose(1, 2) for x in xs), cos, sin, form)
            made = tuple(x.transpose(1, 2) for x in turned)
        return made if num == 2 else made[0]

    def _is_proven(given: tuple[Any, ...], unsqueeze_dim: int) -> bool:
        x, cos = given[0], given[num]
        if unsqueeze_dim not in (1, 2) or cos.ndim != 3 or any(each.ndim != 4 for each in given[:num]):
            return False
        turned = 2 * form.num_pairs(cos.shape[-1])
        has_width = rotation.turns_all if turned == x.shape[-1] else rotation.turns_part and turned < x.shape[-1]
        same_batch = len(cos) in (1, len(x)) and cos.shape[1] == x.shape[2 if unsqueeze_dim == 1 else 1]
        return has_width and same_batch and (x.dtype, cos.dtype) in rotation.dtypes

    return turn
