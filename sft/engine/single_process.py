"""The oracle that the tests hold the other engines against: one process, whole parameters, one tensor after another."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from sft.config import SftConfig
from sft.config_optimizer import OptimizerConfig
from sft.data.collate import Batch
from sft.engine.engine import (
    NonFiniteError,
    ReadState,
    Shard,
    StepResult,
    run_without_gradient,
)
from sft.engine.optimizers import BUILDERS, decay_groups, new_state
from sft.model.attention import attention_for, layout_of
from sft.model.dropout import turn_dropout_off
from sft.model.kernels import apply_kernels
from sft.model.loading import load_model
from sft.model.loss import SupervisedNll, TokenMeasure, all_of, sums_by_segment, token_nll
from sft.model.recomputation import recompute_layers
from sft.optimizers import MASTER, state_kinds
from sft.ranks.ranks import OneRank, Ranks


class SingleProcessEngine:
    """The most obvious `sft.engine.engine.Engine`: float32 masters beside the working parameters."""

    def __init__(
        self,
        config: SftConfig,
        optimizer: OptimizerConfig,
        model_path: str,
        ranks: Ranks | None = None,
        awaits_state: bool = False,
    ) -> None:
        """Load the model whole, in any case; there is one rank."""
        self.awaits_state = awaits_state
        self.ranks = ranks or OneRank()
        assert self.ranks.world.size == 1, "one process is one rank"
        self.num_begun = 0
        attention = attention_for(layout_of(config.train.packing))
        model = load_model(config.model, model_path, getattr(torch, config.model.dtype), attention=attention)
        self._is_random = config.model.dropout == "as_configured"
        if not self._is_random:
            turn_dropout_off(model)
        apply_kernels(model, config.model, torch.device(self.ranks.world.device))
        recompute_layers(model, config.train)
        model.train()
        self._module = SupervisedNll(model, config.train.logits_chunk_tokens)
        self._max_grad_norm = optimizer.max_grad_norm
        self._working = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self._masters = {n: p.detach().float().clone().requires_grad_() for n, p in self._working.items()}
        groups = decay_groups(model, optimizer.weight_decay, lambda p: p.shape)
        names = {p: n for n, p in self._working.items()}
        for group in groups:
            group["params"] = [self._masters[names[p]] for p in group["params"]]
        self._name = optimizer.name
        self._optimizer = BUILDERS[optimizer.name].plain(groups, optimizer)

    @property
    def hf_model(self) -> Any:
        """The Hugging Face model."""
        return self._module.model

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

    def segment_sums(self, batch: Batch, measures: Sequence[TokenMeasure]) -> Tensor:
        """Each measure by segment; see `Engine`."""
        return sums_by_segment(self._run(batch, False, False, all_of(measures)), batch)

    def token_nll(self, batch: Batch, by_own_forward: bool = False) -> Tensor:
        """The nll of each supervised token; see `Engine`."""
        return self._run(batch, by_own_forward, not by_own_forward and not self._is_random, token_nll)

    def _run(self, batch: Batch, by_own_forward: bool, training: bool, measure: TokenMeasure) -> Tensor:
        return run_without_gradient(self._module, lambda: self._module(batch, by_own_forward, measure), training)

    def local_state(self) -> dict[str, Shard]:
        """The whole state, flat; see `Engine`."""
        state = {}
        for name, master in self._masters.items():
            for kind in state_kinds(self._name):
                whole = master.detach() if kind == MASTER else self._optimizer.state[master][kind]
                state[f"{name}/{kind}"] = Shard(whole.numel(), 0, whole.flatten())
        return state

    def local_spans(self) -> dict[str, range]:
        """All elements; see `Engine`."""
        sizes = {name: master.numel() for name, master in self._masters.items()}
        return {f"{name}/{kind}": range(size) for name, size in sizes.items() for kind in state_kinds(self._name)}

    def load_local_state(self, read: ReadState, num_updates: int) -> None:
        """Load a saved state; see `Engine`."""
        self.awaits_state = False
        for name, master in self._masters.items():
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
        """Let go of model, masters and optimizer; see `Engine`."""
        del self._module, self._working, self._masters, self._optimizer

    def _copy_masters(self) -> None:
        for name, parameter in self._working.items():
            parameter.data.copy_(self._masters[name].detach())
