"""How each optimizer of `sft.optimizers` is built: as ZeRO-3 runs it on flat parts, and as the oracle on whole tensors.

A new one is an entry there and one here; `tests/engine/test_optimizers.py` then tests it like all others.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from sft.config_optimizer import OptimizerConfig
from sft.engine.lion import Lion
from sft.optimizers import OPTIMIZERS, OptimizerName

Groups = list[dict[str, Any]]
"""Parameters with the same `weight_decay`."""


class Builders(NamedTuple):
    """How one optimizer is built."""

    plain: Callable[[Groups, OptimizerConfig], Optimizer]
    """The most obvious implementation."""
    fused: Callable[[Groups, OptimizerConfig, bool], Optimizer]
    """The fastest that is installed; the third argument says whether its state is on the CPU."""
    native: Callable[[Groups, OptimizerConfig], Optimizer]
    """The fastest of torch's own, for whole tensors: DeepSpeed is not imported."""
    counted: Callable[[Optimizer, int, torch.device], dict[str, Any]]
    """What its state holds besides the means after this many updates, on this device."""


def decay_groups(model: nn.Module, weight_decay: float, shape_of: Callable[[nn.Parameter], Sequence[int]]) -> Groups:
    """The trained parameters: matrices are decayed; norms and biases, which are vectors, are not.

    A group has one dtype, since ZeRO-3 holds a group as one flat array; the narrowest come first.
    """
    groups: dict[tuple[int, bool, torch.dtype], list[nn.Parameter]] = {}
    for parameter in model.parameters():
        if parameter.requires_grad:
            is_vector = weight_decay != 0 and len(shape_of(parameter)) <= 1
            groups.setdefault((parameter.itemsize, is_vector, parameter.dtype), []).append(parameter)
    return [
        {"params": groups[key], "weight_decay": 0.0 if key[1] else weight_decay}
        for key in sorted(groups, key=lambda key: key[:2])
    ]


def new_state(name: OptimizerName, optimizer: Optimizer, parameter: Tensor, num_updates: int) -> dict[str, Any]:
    """A parameter's optimizer state after this many updates; the caller fills in the means."""
    means = {kind: torch.zeros_like(parameter) for kind in OPTIMIZERS[name].means}
    return {**means, **BUILDERS[name].counted(optimizer, num_updates, parameter.device)}


def _fused_adamw(groups: Groups, config: OptimizerConfig, on_cpu: bool) -> Optimizer:
    """One kernel: DeepSpeed's if its installation has built it, else torch's own.

    DeepSpeed would compile a missing kernel on first use, which needs a compiler, and a minute on every node.
    """
    # ZeRO-3 has imported DeepSpeed by now, for the rank's device; the oracle never does.
    from deepspeed.git_version_info import installed_ops  # noqa: PLC0415  (see above)
    from deepspeed.ops.adam import DeepSpeedCPUAdam, FusedAdam  # noqa: PLC0415  (see above)

    settings: Any = {"lr": config.lr, "betas": config.betas, "eps": config.eps}
    built: Optimizer
    if on_cpu and installed_ops.get("cpu_adam"):
        built = DeepSpeedCPUAdam(groups, adamw_mode=True, **settings)
    elif not on_cpu and installed_ops.get("fused_adam"):
        built = FusedAdam(groups, adam_w_mode=True, **settings)
    else:
        built = _torch_adamw(groups, config, fused=True)
    return built


def _torch_adamw(groups: Groups, config: OptimizerConfig, fused: bool | None = None) -> Optimizer:
    assert config.eps is not None, "see sft.config_rules"
    return AdamW(groups, lr=config.lr, betas=config.betas, eps=config.eps, fused=fused)


def _count_of_adamw(optimizer: Optimizer, num_updates: int, device: torch.device) -> dict[str, Any]:
    """torch counts in a tensor, DeepSpeed in a number."""
    is_of_torch = isinstance(optimizer, AdamW)
    return {"step": torch.tensor(float(num_updates), device=device) if is_of_torch else num_updates}


def _lion(groups: Groups, config: OptimizerConfig, on_cpu: bool = True) -> Optimizer:
    return Lion(groups, config.lr, config.betas)


BUILDERS: Mapping[OptimizerName, Builders] = {
    "adamw": Builders(_torch_adamw, _fused_adamw, partial(_torch_adamw, fused=True), _count_of_adamw),
    "lion": Builders(_lion, _lion, _lion, lambda *_: {}),
}
