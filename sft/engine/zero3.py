"""ZeRO-3: parameters, gradients and optimizer state are split over the ranks, each parameter as a flat array.

Rank r of W holds elements `r * ceil(n / W)` onwards of each parameter of n elements, the last ones padded. So the
format of a checkpoint does not depend on the world size: it is n elements in W parts, and any other W' reads its own
parts of them.
"""

import gc
import math
import os
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, cast

import deepspeed
import deepspeed.ops
import torch
from deepspeed.accelerator import get_accelerator
from deepspeed.runtime.zero.utils import ZERO_SUPPORTED_OPTIMIZERS
from torch import Tensor

from sft.config import SftConfig
from sft.config_optimizer import OptimizerConfig
from sft.data.collate import Batch
from sft.engine.early_copy import EarlyCopy
from sft.engine.engine import (
    NonFiniteError,
    ReadState,
    Shard,
    StepResult,
    run_without_gradient,
)
from sft.engine.leaf_layers import gather_by_layers, part_sizes
from sft.engine.optimizers import BUILDERS, decay_groups, new_state
from sft.engine.trained_model import load_trained
from sft.engine.zero3_config import build_zero3_config
from sft.engine.zero3_dtypes import buffers_by_dtype, check_gathering
from sft.engine.zero3_release import release
from sft.model.loss import TokenMeasure, all_of, sums_by_segment
from sft.model.own_weights import own_range
from sft.model.sequence_parallel import SequenceGroup
from sft.model.text_path import text_decoder
from sft.optimizers import MASTER, state_kinds
from sft.ranks.agreement import meet
from sft.ranks.ranks import Ranks

# On the CPU, DeepSpeed would compile a shared-memory op for a minute or two. If killed meanwhile, it makes later
# processes hang. With gloo, a step takes the same time.
deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False


class Zero3Engine:
    """DeepSpeed's ZeRO-3 engine behind `sft.engine.engine.Engine`."""

    def __init__(
        self,
        config: SftConfig,
        optimizer: OptimizerConfig,
        model_path: str,
        ranks: Ranks,
        awaits_state: bool = False,
    ) -> None:
        """Load the model straight into shards. The process group must exist; all ranks call this together."""
        self.awaits_state = awaits_state
        self.ranks, world = ranks, ranks.world
        self.num_begun = 0
        self.device = torch.device(world.device)
        accelerator = get_accelerator().device_name()
        assert accelerator == self.device.type, f"DeepSpeed was imported for {accelerator}; see sft.engine.engines"
        # DeepSpeed takes the number of its device only from here; and how many this machine has, which on CPUs it would
        # ask `numactl` for, a process for each micro-batch.
        os.environ["LOCAL_RANK"] = str(self.device.index or 0)
        os.environ["LOCAL_SIZE"] = str(world.local_size)
        zero_config = build_zero3_config(config, optimizer.max_grad_norm, world)
        self._is_random = config.model.dropout == "as_configured"
        on_cpu = not world.on_gpu or config.deepspeed.offload_optimizer == "cpu"
        # Ranks that have read their part of a parameter wait for the others, so that each waits for one at most.
        group = SequenceGroup(world.sequence_place, world.num_parts, ranks.all_to_all)
        tell = partial(meet, ranks)
        module = load_trained(config, model_path, self.device, zero_config, awaits_state, tell, group)
        check_gathering(module, zero_config)
        groups = decay_groups(module, optimizer.weight_decay, lambda p: cast(Any, p).ds_shape)
        self._optimizer = optimizer.name
        built = BUILDERS[optimizer.name].fused(groups, optimizer, on_cpu)
        # DeepSpeed warns of an optimizer that it does not list; our tests cover those of the table.
        if type(built) not in ZERO_SUPPORTED_OPTIMIZERS:
            ZERO_SUPPORTED_OPTIMIZERS.append(type(built))
        decoder = text_decoder(module.model)
        sizes = part_sizes(module.model, decoder, lambda parameter: int(parameter.ds_numel))
        zero_config = build_zero3_config(config, optimizer.max_grad_norm, world, sizes)
        with buffers_by_dtype():
            self._engine, *_ = deepspeed.initialize(model=module, optimizer=built, config=zero_config)
        self._zero: Any = self._engine.optimizer
        if config.deepspeed.gather == "layer":
            gather_by_layers(self._engine, decoder)
        self._norm = EarlyCopy(self._zero.optimizer, lambda: self._zero._global_grad_norm)

    @property
    def hf_model(self) -> Any:
        """The Hugging Face model."""
        return self._engine.module.model

    def train_step(self, micro_batches: Sequence[Batch], num_supervised_tokens: int, lr: float) -> StepResult:
        """One update; see `Engine`."""
        for group in self._zero.param_groups:
            group["lr"] = lr
        nll = torch.zeros((), dtype=torch.float64, device=self.device)
        for i, batch in enumerate(micro_batches):
            self._engine.set_gradient_accumulation_boundary(i == len(micro_batches) - 1)
            self.num_begun += 1
            if batch.seed is not None:
                torch.manual_seed(batch.seed)
            nll_sum = self._engine(batch.to(self.device)).sum()
            # DeepSpeed averages over the ranks; times the world size, this is the sum.
            self._engine.backward(nll_sum * (self.ranks.world.size / num_supervised_tokens), scale_wrt_gas=False)
            nll += nll_sum.detach()
        loss = float(self.ranks.sum(nll)) / num_supervised_tokens
        if not math.isfinite(loss):
            self._drop_gradients()
            raise NonFiniteError(f"the loss is {loss}", self._ranks_where(not math.isfinite(float(nll))))
        self._engine.step()
        if self._zero.overflow:
            # DeepSpeed made no update, and dropped the gradients.
            raise NonFiniteError("the gradient is not finite")
        return StepResult(loss, self._norm.take())

    def _drop_gradients(self) -> None:
        """Do what DeepSpeed's own step does with gradients that it does not use."""
        self._zero._pre_step()
        self._zero._partition_all_parameters()
        self._zero._overflow_clean_up(self._zero.loss_scale)

    def _ranks_where(self, is_here: bool) -> tuple[int, ...]:
        found = torch.zeros(self.ranks.world.size)
        found[self.ranks.world.rank] = is_here
        return tuple(self.ranks.sum(found).nonzero().flatten().tolist())

    def segment_sums(self, batch: Batch, measures: Sequence[TokenMeasure]) -> Tensor:
        """Each measure by segment; see `Engine`."""
        on_device, measure = batch.to(self.device), all_of(measures)
        measured_SM = run_without_gradient(self._engine, lambda: self._engine(on_device, False, measure), False)
        return sums_by_segment(measured_SM, on_device).cpu()

    def token_nll(self, batch: Batch, by_own_forward: bool = False) -> Tensor:
        """The nll of each supervised token; see `Engine`."""
        on_device, training = batch.to(self.device), not by_own_forward and not self._is_random
        return run_without_gradient(self._engine, lambda: self._engine(on_device, by_own_forward), training).cpu()

    def local_state(self) -> dict[str, Shard]:
        """This rank's part of the state; see `Engine`."""
        # DeepSpeed's own functions would move all offloaded state to the device.
        state = {}
        for name, parameter in self._parameters():
            span = own_range(parameter)
            for kind in state_kinds(self._optimizer):
                values = self._part(parameter, kind)[: len(span)]
                state[f"{name}/{kind}"] = Shard(parameter.ds_numel, span.start, values)
        return state

    def local_spans(self) -> dict[str, range]:
        """See `Engine`."""
        spans = {name: own_range(parameter) for name, parameter in self._parameters()}
        return {f"{name}/{kind}": span for name, span in spans.items() for kind in state_kinds(self._optimizer)}

    def load_local_state(self, read: ReadState, num_updates: int) -> None:
        """Load a saved state; see `Engine`."""
        self.awaits_state = False
        # Before the first update, the optimizer has no state to fill.
        for flat in self._zero.fp32_partitioned_groups_flat:
            state = new_state(self._optimizer, self._zero.optimizer, flat, num_updates)
            self._zero.optimizer.state[flat] = state
        # Release what is gathered: it has the old values.
        self._zero.checkpoint_event_prologue()
        for name, parameter in self._parameters():
            span = own_range(parameter)
            for kind in state_kinds(self._optimizer):
                part = self._part(parameter, kind)
                part[: len(span)].copy_(read(f"{name}/{kind}", span.start, span.stop))
                part[len(span) :].zero_()
            # The first forward pass uses the working copy, which nothing else would update.
            parameter.ds_tensor.data.copy_(self._part(parameter, MASTER))
        # Drops hpZ's copies, which have the old values. Gathers the small parameters, whole on every rank, anew.
        self._zero.checkpoint_event_epilogue()

    def gather_parameters(self, names: Sequence[str]) -> Iterator[tuple[str, Tensor]]:
        """These whole parameters, one at a time; see `Engine`."""
        for name in names:
            parameter = self.hf_model.get_parameter(name)
            with deepspeed.zero.GatheredParameters([parameter]):
                yield name, parameter.data

    def close(self) -> None:
        """Free all memory; see `Engine`."""
        release(self._engine)
        del self._engine, self._zero, self._norm
        gc.collect()
        if self.ranks.world.on_gpu:
            torch.cuda.empty_cache()

    def _parameters(self) -> Iterator[tuple[str, Any]]:
        """The trained parameters."""
        return ((name, p) for name, p in self.hf_model.named_parameters() if p.requires_grad)

    def _part(self, parameter: Any, kind: str) -> Tensor:
        """This rank's part of one kind of state, padded: a view of the optimizer's flat tensor."""
        group, offset, size = self._zero.grad_position[self._zero.get_param_id(parameter)]
        flat = self._zero.fp32_partitioned_groups_flat[group]
        whole = flat.detach() if kind == MASTER else self._zero.optimizer.state[flat][kind]
        return cast(Tensor, whole.narrow(0, offset, size))
