"""All but the step of an engine of one rank: the whole model, its optimizer, and the state of both."""

import gc
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from sft.config import SftConfig
from sft.config_optimizer import OptimizerConfig
from sft.data.collate import Batch
from sft.engine.engine import ReadState, Shard, run_without_gradient
from sft.engine.optimizers import Groups, decay_groups, new_state
from sft.engine.trained_model import load_trained
from sft.model.loss import TokenMeasure, all_of, sums_by_segment, token_nll
from sft.optimizers import MASTER, state_kinds
from sft.ranks.ranks import Ranks


class OneRankEngine:
    """See `sft.engine.engine.Engine`. The optimizer updates float32 masters of the parameters."""

    def __init__(
        self,
        config: SftConfig,
        optimizer: OptimizerConfig,
        model_path: str,
        ranks: Ranks,
        awaits_state: bool,
        master_of: Callable[[nn.Parameter], Tensor],
        build: Callable[[Groups, OptimizerConfig], Optimizer],
    ) -> None:
        """Load the model whole, onto the rank's device. `master_of` may give the parameter itself."""
        assert ranks.world.size == 1, "see sft.engine.choice"
        self.ranks, self.awaits_state, self.num_begun = ranks, awaits_state, 0
        self.device = torch.device(ranks.world.device)
        self._is_random = config.model.dropout == "as_configured"
        self._max_grad_norm = optimizer.max_grad_norm
        self._module = load_trained(config, model_path, self.device, awaits_state=awaits_state).to(self.device)
        self._working = {name: p for name, p in self.hf_model.named_parameters() if p.requires_grad}
        self._masters = {name: master_of(parameter) for name, parameter in self._working.items()}
        groups = decay_groups(self._module, optimizer.weight_decay, lambda p: p.shape)
        names = {parameter: name for name, parameter in self._working.items()}
        for group in groups:
            group["params"] = [self._masters[names[parameter]] for parameter in group["params"]]
        self._name, self._optimizer = optimizer.name, build(groups, optimizer)
        for master in self._masters.values():
            self._optimizer.state[master] = new_state(self._name, self._optimizer, master.detach(), 0)

    @property
    def hf_model(self) -> Any:
        """The Hugging Face model."""
        return self._module.model

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
        return {key: Shard(whole.numel(), 0, whole.flatten()) for key, whole in self._state().items()}

    def local_spans(self) -> dict[str, range]:
        """All elements; see `Engine`."""
        return {key: range(whole.numel()) for key, whole in self._state().items()}

    def load_local_state(self, read: ReadState, num_updates: int) -> None:
        """Load a saved state; see `Engine`."""
        self.awaits_state = False
        for master in self._masters.values():
            self._optimizer.state[master] = new_state(self._name, self._optimizer, master.detach(), num_updates)
        for key, whole in self._state().items():
            whole.copy_(read(key, 0, whole.numel()).view_as(whole))
        self._copy_masters()

    def _state(self) -> dict[str, Tensor]:
        state = {}
        for name, master in self._masters.items():
            for kind in state_kinds(self._name):
                state[f"{name}/{kind}"] = master.detach() if kind == MASTER else self._optimizer.state[master][kind]
        return state

    def _copy_masters(self) -> None:
        with torch.no_grad():
            for name, parameter in self._working.items():
                parameter.copy_(self._masters[name])

    def gather_parameters(self, names: Sequence[str]) -> Iterator[tuple[str, Tensor]]:
        """These parameters; see `Engine`."""
        return ((name, self.hf_model.get_parameter(name).data) for name in names)

    def close(self) -> None:
        """Free all memory; see `Engine`."""
        del self._module, self._working, self._masters, self._optimizer
        gc.collect()
        if self.ranks.world.on_gpu:
            torch.cuda.empty_cache()
