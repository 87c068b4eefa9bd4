"""Liger's kernels (Hsu et al. 2024, "Liger Kernel") for norm and gate.

Nothing else of it is used: not its loss, nor its changes to the classes of transformers. Its rotary embedding turns
queries and keys in their own memory, which another part of the model may still need; ours takes its place.
"""

import importlib.util
from typing import Any

from torch import Tensor

from sft.errors import UserError
from sft.model import elementwise
from sft.model.elementwise import Activation, NormForm


def refuse_without_liger(on_gpu: bool) -> None:
    """Refuse a machine where Liger does not run.

    Raises:
        UserError: there is no GPU, or the package is not installed.
    """
    if not on_gpu:
        raise UserError("model.kernels: liger needs a GPU, and there is none here. Set model.kernels=auto.")
    if importlib.util.find_spec("liger_kernel") is None:
        raise UserError(
            "model.kernels: liger needs the package liger-kernel, which is not installed here. Install it on every "
            "node (`pip install 'sft[liger]'`), or set model.kernels=auto."
        )


def liger_norm(x: Tensor, weight: Tensor | None, eps: float, form: NormForm) -> Tensor:
    """See `elementwise.norm`."""
    offset = 1.0 if form == "one_plus_weight" else 0.0
    rounded = "llama" if form == "weight_after" else "gemma"
    in_place = False  # the gradient that comes in may be another part's too
    made: Tensor = _ops().LigerRMSNormFunction.apply(x, weight, eps, offset, rounded, in_place)
    return made


def liger_gated(gate: Tensor, up: Tensor, activation: Activation) -> Tensor:
    """See `elementwise.gated`."""
    if not gate.numel():
        return elementwise.gated(gate, up, activation)
    ops = _ops()
    function = ops.LigerSiLUMulFunction if activation == "silu" else ops.LigerGELUMulFunction
    made: Tensor = function.apply(gate, up)
    return made


def liger_gated_halves(gate_up: Tensor, activation: Activation) -> Tensor:
    """See `elementwise.gated_halves`."""
    gate, up = gate_up.chunk(2, -1)
    return liger_gated(gate, up, activation)


def _ops() -> Any:
    # Imported where it is used: it looks for a GPU.
    import liger_kernel.ops  # noqa: PLC0415

    return liger_kernel.ops
