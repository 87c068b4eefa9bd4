"""The engine of one rank: whole parameters, and nothing around the model's own forward and backward pass.

ZeRO-3 has nothing to split over one rank, but its hooks still run, and wait for the device at each of them. This engine
computes what ZeRO-3 would: gradients of micro-batches are summed in float32, and float32 masters are updated. A float32
model is its own master.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sft.config import SftConfig
from sft.config_optimizer import OptimizerConfig
from sft.data.collate import Batch
from sft.engine.engine import NonFiniteError, StepResult
from sft.engine.one_rank import OneRankEngine
from sft.engine.optimizers import BUILDERS
from sft.ranks.ranks import Ranks


class PlainEngine(OneRankEngine):
    """See `sft.engine.engine.Engine`."""

    def __init__(
        self,
        config: SftConfig,
        optimizer: OptimizerConfig,
        model_path: str,
        ranks: Ranks,
        awaits_state: bool = False,
    ) -> None:
        """Load the model whole, onto the rank's device."""
        build = BUILDERS[optimizer.name].native
        super().__init__(config, optimizer, model_path, ranks, awaits_state, _master, build)
        pairs = zip(self._working.values(), self._masters.values(), strict=True)
        copied = [(parameter, master) for parameter, master in pairs if parameter is not master]
        self._narrow, self._wide = [parameter for parameter, _ in copied], [master for _, master in copied]
        """Parameters that have a master beside them, and these. A master's gradient is the sum over micro-batches."""
        for master in self._wide:
            master.grad = torch.empty_like(master)

    def train_step(self, micro_batches: Sequence[Batch], num_supervised_tokens: int, lr: float) -> StepResult:
        """One update; see `Engine`."""
        nll = torch.zeros((), dtype=torch.float64, device=self.device)
        for i, batch in enumerate(micro_batches):
            self.num_begun += 1
            if batch.seed is not None:
                torch.manual_seed(batch.seed)
            nll_sum = self._module(batch.to(self.device)).sum()
            (nll_sum * (1 / num_supervised_tokens)).backward()
            nll += nll_sum.detach()
            self._add_up(is_first=i == 0)
        for master in self._masters.values():
            master.grad = _gradient(master)
        # The one wait of the step: both numbers come to the host together, before the update.
        total_nll, grad_norm = torch.stack([nll, self._norm().double()]).tolist()
        loss = total_nll / num_supervised_tokens
        if math.isfinite(loss) and math.isfinite(grad_norm):
            self._update(grad_norm, lr)
        self._drop_gradients()
        if not math.isfinite(loss):
            raise NonFiniteError(f"the loss is {loss}", (0,))
        if not math.isfinite(grad_norm):
            raise NonFiniteError("the gradient is not finite")
        return StepResult(loss, grad_norm)

    def _add_up(self, is_first: bool) -> None:
        if not self._narrow:
            return  # autograd adds up in float32 itself
        add: Any = torch._foreach_copy_ if is_first else torch._foreach_add_
        add([_gradient(master) for master in self._wide], [_gradient(parameter) for parameter in self._narrow])
        for parameter in self._narrow:
            parameter.grad = None

    def _norm(self) -> Tensor:
        """The norm over all gradients, added up in ZeRO-3's order."""
        of_groups = []
        for group in self._optimizer.param_groups:
            norms = torch._foreach_norm([_gradient(master) for master in group["params"]])
            of_groups.append(torch.stack(norms).square().sum().sqrt())
        norm: Tensor = torch.linalg.vector_norm(torch.stack(of_groups))
        return norm

    def _update(self, grad_norm: float, lr: float) -> None:
        clip = (grad_norm + 1e-6) / self._max_grad_norm
        if clip > 1:
            torch._foreach_mul_([_gradient(master) for master in self._masters.values()], 1 / clip)
        for group in self._optimizer.param_groups:
            group["lr"] = lr
        self._optimizer.step()
        self._copy_masters()

    def _drop_gradients(self) -> None:
        """Those of float32 parameters; the sums of the others are overwritten."""
        for name, parameter in self._working.items():
            if parameter is self._masters[name]:
                parameter.grad = None

    def _copy_masters(self) -> None:
        if self._narrow:
            with torch.no_grad():
                torch._foreach_copy_(self._narrow, self._wide)

    def close(self) -> None:
        """Free all memory; see `Engine`."""
        del self._narrow, self._wide
        super().close()


def _master(parameter: nn.Parameter) -> Tensor:
    if parameter.dtype == torch.float32:
        return parameter
    return parameter.detach().float().requires_grad_()


def _gradient(tensor: Tensor) -> Tensor:
    """Its gradient; without one, as of an expert that got no token, zeros, so that it is updated as by ZeRO-3."""
    return torch.zeros_like(tensor) if tensor.grad is None else tensor.grad
