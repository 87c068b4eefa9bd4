"""What memory and traffic depend on besides the model: the batch, the workers, and where states are kept."""

import math
from typing import Any, NamedTuple, Self

from sft.config import DTYPE_BYTES, SftConfig
from sft.engine.choice import may_be_plain
from sft.engine.zero3_config import build_zero3_config, num_copy_ranks
from sft.optimizers import state_bytes
from sft.recomputed_layers import Recomputed, packs_or_one, recomputed_layers
from sft.sizing.activations import Numbers
from sft.world import World

FLOAT32_BYTES = 4
_DEFAULT_LIMIT = 1_000_000_000
"""DeepSpeed's default, if the engine sets none."""


class Buckets(NamedTuple):
    """DeepSpeed's limits, in elements."""

    reduce: int
    """Gradients that wait to be reduced together."""
    prefetch: int
    """Parameters that are gathered before they are needed."""
    live: int
    """Up to this many whole parameters, others are gathered ahead."""
    reuse_distance: int
    """Parameters that are used again before this many others are not released."""
    sub_group: int
    """Parameters of a worker that are updated at the same time."""

    @classmethod
    def of(cls, config: SftConfig) -> Self:
        """The limits of the engine, with the config's `deepspeed.extra`; otherwise DeepSpeed's defaults."""
        zero: Any = build_zero3_config(config, 1.0, World(device="cuda"))["zero_optimization"]
        of_stage3 = ("prefetch_bucket_size", "max_live_parameters", "max_reuse_distance")
        names = ("reduce_bucket_size", *(f"stage3_{name}" for name in of_stage3), "sub_group_size")
        return cls(*(int(zero.get(name, _DEFAULT_LIMIT)) for name in names))


class Setting(NamedTuple):
    """How a stage's steps are run."""

    num_workers: int
    num_tokens: int
    """Tokens of a micro-batch of full packs."""
    numbers: Numbers
    activation_checkpointing: Recomputed
    """Which layers keep only their input, and are computed again in the backward pass."""
    offload_activations: bool
    """Whether these inputs are in host memory, if the device is a GPU."""
    logits_chunk_tokens: int
    optimizer_bytes: int
    """Bytes of state for one element: its float32 copy, and what the optimizer keeps."""
    offload_optimizer: bool
    offload_parameters: bool
    copies_checkpoint: bool
    """Whether a checkpoint is written from a copy in host memory."""
    buckets: Buckets
    num_copy_ranks: int
    """Workers that share a copy of the parameters, besides the parts split over all (hpZ); 1: there is none."""
    is_plain: bool = False
    """Whether it is the engine of one worker, without ZeRO-3 (`sft.engine.plain`)."""
    is_one_micro_batch: bool = False
    """Whether no step has a second micro-batch on a worker."""

    @property
    def is_own_master(self) -> bool:
        """Whether parameters are their own masters, and their gradients those of the step."""
        return self.is_plain and self.numbers.num_bytes == FLOAT32_BYTES

    def recomputed(self, num_layers: int) -> range:
        """The layers that are computed again, of a model with this number of layers."""
        return recomputed_layers(self.activation_checkpointing, num_layers)

    @classmethod
    def of(cls, config: SftConfig, stage_index: int, num_workers: int, on_gpu: bool) -> Self:
        """The setting of a stage with this number of workers."""
        train = config.train
        packs = min(packs_or_one(train.packs_per_micro_batch), math.ceil(train.packs_per_step / num_workers))
        return cls(
            num_workers,
            packs * config.pack_len_tokens(stage_index),
            Numbers(DTYPE_BYTES[config.model.dtype], on_gpu, on_gpu and config.model.kernels != "none"),
            train.activation_checkpointing,
            train.offload_activations == "cpu" and on_gpu,
            train.logits_chunk_tokens,
            state_bytes(config.stages[stage_index].optimizer.name),
            config.deepspeed.offload_optimizer == "cpu",
            config.deepspeed.offload_parameters == "cpu",
            config.checkpoint.async_ or on_gpu,
            Buckets.of(config),
            num_copy_ranks(config.deepspeed.hpz_partition_size, num_workers),
            may_be_plain(config, num_workers),
            packs * num_workers >= train.packs_per_step,
        )
