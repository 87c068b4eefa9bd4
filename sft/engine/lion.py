"""Lion as published: AdamW's decay, one running mean of the gradients, and only the sign of the update."""

from typing import Any

import torch
from torch import Tensor

_PIECE_ELEMENTS = 1 << 22
"""How many elements are updated at a time: the update needs memory for these, not for all parameters."""


class Lion(torch.optim.Optimizer):
    """Chen et al. 2023, "Symbolic Discovery of Optimization Algorithms" (arXiv 2302.06675), algorithm 2.

        c = β1·m + (1 - β1)·g        w = (1 - lr·λ)·w - lr·sign(c)        m = β2·m + (1 - β2)·g

    The sign of zero is zero, so an embedding row whose token never occurs in a run stays as it is. DeepSpeed's kernels
    (0.19.8) move such a weight by `lr`, on CPUs down and on GPUs up; torch has none.
    """

    def __init__(self, groups: Any, lr: float, betas: tuple[float, float], weight_decay: float = 0.0) -> None:
        """`groups` are parameters, or groups of them with their own `weight_decay`."""
        super().__init__(groups, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # nothing is computed again
        """Update all parameters that have a gradient."""
        for group in self.param_groups:
            (beta1, beta2), kept = group["betas"], 1 - group["lr"] * group["weight_decay"]
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["exp_avg"] = torch.zeros_like(parameter)
                of_all = (parameter, parameter.grad, state["exp_avg"])
                for weight, gradient, mean in zip(*map(_pieces, of_all), strict=True):
                    update = mean.lerp(gradient, 1 - beta1).sign_()
                    weight.mul_(kept).add_(update, alpha=-group["lr"])
                    mean.lerp_(gradient, 1 - beta2)


def _pieces(tensor: Tensor) -> tuple[Tensor, ...]:
    return torch.split(tensor, _PIECE_ELEMENTS) if tensor.dim() else (tensor,)
