"""The engine of one rank: whole parameters, and nothing around the model's own forward and backward pass.

ZeRO-3 has nothing to split over one rank, but its hooks still run, and wait for the device at each of them. This engine
computes what ZeRO-3 would: gradients of micro-batches are summed in float32, and float32 masters are updated. A float32
model is its own master.
"""

import gc
import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sft.config import SftConfig
from sft.config_optimizer import OptimizerConfig
from sft.data.collate import Batch
from sft.engine.engine import NonFiniteError, ReadState, Shard, StepResult, run_without_gradient
from sft.engine.optimizers import BUILDERS, decay_groups, new_state
from sft.engine.trained_model import load_trained
from sft.model.loss import TokenMeasure, all_of, sums_by_segment, token_nll
from sft.optimizers import MASTER, state_kinds
from sft.ranks.ranks import Ranks


class PlainEngine:
    """See `sft.engine.engine.Engine`."""

    def __init__(
        self,
        config: SftConfig,
        optimizer: OptimizerConfig,
        model_path: str,
        ranks: Ranks,
        awaits_state: bool = False,
    ) -> None:
        """Load the model whole, in any case, onto the rank's device."""
        self.awaits_state = awaits_state
        assert ranks.world.size == 1, "see sft.engine.choice"
        self.ranks = ranks
        self.num_begun = 0
        self.device = torch.device(ranks.world.device)
        self._is_random = config.model.dropout == "as_configured"
        self._module = load_trained(config, model_path, self.device).to(self.device)
        self._max_grad_norm = optimizer.max_grad_norm
        self._names = {p: name for name, p in self.hf_model.named_parameters() if p.requires_grad}
        self._working = list(self._names)
        self._masters = [_master(parameter) for parameter in self._working]
        self._sums: list[Tensor] | None = None
        """The gradients of the micro-batches so far, in float32; None: a float32 model adds them up itself."""
        if any(p is not master for p, master in zip(self._working, self._masters, strict=True)):
            self._sums = [torch.empty_like(master) for master in self._masters]
        master_of = dict(zip(self._working, self._masters, strict=True))
        groups = decay_groups(self._module, optimizer.weight_decay, lambda p: p.shape)
        place = {parameter: i for i, parameter in enumerate(self._working)}
        self._norm_groups = [[place[p] for p in group["params"]] for group in groups]
        for group in groups:
            group["params"] = [master_of[p] for p in group["params"]]
        self._name = optimizer.name
        self._optimizer = BUILDERS[optimizer.name].native(groups, optimizer)
        for master in self._masters:
            self._optimizer.state[master] = new_state(self._name, self._optimizer, master.detach(), 0)

    @property
    def hf_model(self) -> Any:
        """The Hugging Face model."""
        return self._module.model

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
        gradients = self._gradients()
        norm = self._norm(gradients)
        # The one wait of the step: both numbers come to the host together, before the update.
        total_nll, grad_norm = torch.stack([nll, norm.double()]).tolist()
        loss = total_nll / num_supervised_tokens
        if not (math.isfinite(loss) and math.isfinite(grad_norm)):
            self._drop_gradients()
            is_loss = not math.isfinite(loss)
            raise NonFiniteError(*((f"the loss is {loss}", (0,)) if is_loss else ("the gradient is not finite",)))
        self._update(gradients, grad_norm, lr)
        return StepResult(loss, grad_norm)

    def _add_up(self, is_first: bool) -> None:
        if self._sums is None:
            return
        made = [_zeros_if_none(parameter) for parameter in self._working]
        add: Any = torch._foreach_copy_ if is_first else torch._foreach_add_
        add(self._sums, made)
        for parameter in self._working:
            parameter.grad = None

    def _gradients(self) -> list[Tensor]:
        return self._sums or [_zeros_if_none(parameter) for parameter in self._working]

    def _norm(self, gradients: list[Tensor]) -> Tensor:
        """The norm over all gradients, added up in ZeRO-3's order."""
        norms = torch._foreach_norm(gradients)
        of_groups = [torch.stack([norms[i] for i in group]).square().sum().sqrt() for group in self._norm_groups]
        norm: Tensor = torch.linalg.vector_norm(torch.stack(of_groups))
        return norm

    def _update(self, gradients: list[Tensor], grad_norm: float, lr: float) -> None:
        clip = (grad_norm + 1e-6) / self._max_grad_norm
        if clip > 1:
            torch._foreach_mul_(gradients, 1 / clip)
        for master, gradient in zip(self._masters, gradients, strict=True):
            master.grad = gradient
        for group in self._optimizer.param_groups:
            group["lr"] = lr
        self._optimizer.step()
        self._drop_gradients()
        self._copy_masters()

    def _drop_gradients(self) -> None:
        for parameter in (*self._working, *self._masters):
            parameter.grad = None

    def _copy_masters(self) -> None:
        if self._sums is not None:
            with torch.no_grad():
                torch._foreach_copy_(self._working, self._masters)

    def segment_sums(self, batch: Batch, measures: Sequence[TokenMeasure]) -> Tensor:
        """Each measure by segment; see `Engine`."""
        on_device = batch.to(self.device)
        return sums_by_segment(self._run(on_device, False, False, all_of(measures)), on_device).cpu()

    def token_nll(self, batch: Batch, by_own_forward: bool = False) -> Tensor:
        """The nll of each supervised token; see `Engine`."""
        training = not by_own_forward and not self._is_random
        return self._run(batch.to(self.device), by_own_forward, training, token_nll).cpu()

    def _run(self, batch: Batch, by_own_forward: bool, training: bool, measure: TokenMeasure) -> Tensor:
        return run_without_gradient(self._module, lambda: self._module(batch, by_own_forward, measure), training)

    def local_state(self) -> dict[str, Shard]:
        """The whole state, flat; see `Engine`."""
        state = {}
        for name, master in zip(self._names.values(), self._masters, strict=True):
            for kind in state_kinds(self._name):
                whole = master.detach() if kind == MASTER else self._optimizer.state[master][kind]
                state[f"{name}/{kind}"] = Shard(whole.numel(), 0, whole.flatten())
        return state

    def local_spans(self) -> dict[str, range]:
        """All elements; see `Engine`."""
        return {
            f"{name}/{kind}": range(parameter.numel())
            for parameter, name in self._names.items()
            for kind in state_kinds(self._name)
        }

    def load_local_state(self, read: ReadState, num_updates: int) -> None:
        """Load a saved state; see `Engine`."""
        self.awaits_state = False
        for name, master in zip(self._names.values(), self._masters, strict=True):
            state = new_state(self._name, self._optimizer, master.detach(), num_updates)
            self._optimizer.state[master] = state
            for kind in state_kinds(self._name):
                whole = master.data if kind == MASTER else state[kind]
                whole.copy_(read(f"{name}/{kind}", 0, master.numel()).view_as(master))
        self._copy_masters()

    def gather_parameters(self, names: Sequence[str]) -> Iterator[tuple[str, Tensor]]:
        """These parameters; see `Engine`."""
        return ((name, self.hf_model.get_parameter(name).data) for name in names)

    def persistent_buffers(self) -> dict[str, Tensor]:
        """Buffers that belong to the model's file."""
        names = {name for name, _ in self.hf_model.named_parameters(remove_duplicate=False)}
        return {name: value for name, value in self.hf_model.state_dict().items() if name not in names}

    def close(self) -> None:
        """Free all memory; see `Engine`."""
        del self._module, self._names, self._working, self._masters, self._sums, self._optimizer
        gc.collect()
        if self.ranks.world.on_gpu:
            torch.cuda.empty_cache()


def _master(parameter: nn.Parameter) -> Tensor:
    if parameter.dtype == torch.float32:
        return parameter
    return parameter.detach().float().requires_grad_()


def _zeros_if_none(parameter: nn.Parameter) -> Tensor:
    """Its gradient; without one, as of an expert that got no token, zeros, so that it is updated as by ZeRO-3."""
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
