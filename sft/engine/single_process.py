"""The oracle that the tests hold the other engines against: one process, whole parameters, one tensor after another."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from sft.config import SftConfig
from sft.config_optimizer import OptimizerConfig
from sft.data.collate import Batch
from sft.engine.engine import NonFiniteError, StepResult
from sft.engine.one_rank import OneRankEngine
from sft.engine.optimizers import BUILDERS
from sft.ranks.ranks import OneRank, Ranks


class SingleProcessEngine(OneRankEngine):
    """The most obvious `sft.engine.engine.Engine`: float32 masters beside the working parameters."""

    def __init__(
        self,
        config: SftConfig,
        optimizer: OptimizerConfig,
        model_path: str,
        ranks: Ranks | None = None,
        awaits_state: bool = False,
    ) -> None:
        """Load the model whole; there is one rank."""
        build = BUILDERS[optimizer.name].plain
        super().__init__(config, optimizer, model_path, ranks or OneRank(), awaits_state, _master, build)

    def train_step(self, micro_batches: Sequence[Batch], num_supervised_tokens: int, lr: float) -> StepResult:
        """One update; see `Engine`."""
        nll = 0.0
        gradients = {name: torch.zeros_like(master) for name, master in self._masters.items()}
        for batch in micro_batches:
            self.num_begun += 1
            if batch.seed is not None:
                torch.manual_seed(batch.seed)
            nll_sum = self._module(batch).sum()
            (nll_sum / num_supervised_tokens).backward()
            nll += float(nll_sum.detach())
            for name, parameter in self._working.items():
                assert parameter.grad is not None, f"{name} is not part of the loss"
                gradients[name] += parameter.grad.float()
                parameter.grad = None
        if not math.isfinite(nll):
            raise NonFiniteError(f"the loss is {nll / num_supervised_tokens}", (0,))
        for name, master in self._masters.items():
            master.grad = gradients[name]
        grad_norm = float(clip_grad_norm_(self._masters.values(), self._max_grad_norm))
        if not math.isfinite(grad_norm):
            raise NonFiniteError(f"the norm of the gradient is {grad_norm}")
        for group in self._optimizer.param_groups:
            group["lr"] = lr
        self._optimizer.step()
        self._copy_masters()
        return StepResult(nll / num_supervised_tokens, grad_norm)


def _master(parameter: nn.Parameter) -> Tensor:
    return parameter.detach().float().clone().requires_grad_()
