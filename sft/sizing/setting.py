"""What memory and traffic depend on besides the model: the batch, the workers, and where states are kept."""

import math
from typing import Any, NamedTuple, Self

from sft.config import DTYPE_BYTES, SftConfig
from sft.engine.choice import may_be_plain
from sft.engine.zero3_config import build_zero3_config, num_copy_ranks
from sft.engine.zero3_limits import PERSISTENT, PartSizes, split_elements
from sft.optimizers import state_bytes
from sft.recomputed_layers import Recomputed, packs_or_one, recomputed_layers
from sft.sizing.activations import Numbers
from sft.sizing.model_shape import ModelShape
from sft.world import World

FLOAT32_BYTES = 4
_DEFAULT_SUB_GROUP = 1_000_000_000
"""DeepSpeed's default: the engine sets none."""


class Buckets(NamedTuple):
    """DeepSpeed's limits, in elements: see `Zero3Limits`."""

    reduce: int
    prefetch: int
    live: int
    reuse_distance: int
    sub_group: int
    """Parameters of a worker that are updated at the same time."""
    persistent: int = PERSISTENT

    @classmethod
    def of(cls, config: SftConfig, shape: ModelShape, num_workers: int, between_nodes: bool) -> Self:
        """The limits of the engine, with the config's `deepspeed.extra`."""
        world = World(size=num_workers, local_size=1 if between_nodes else num_workers, device="cuda")
        zero: Any = build_zero3_config(config, 1.0, world, count_parts(shape))["zero_optimization"]
        return cls(
            reduce=int(zero["reduce_bucket_size"]),
            prefetch=int(zero["stage3_prefetch_bucket_size"]),
            live=int(zero["stage3_max_live_parameters"]),
            reuse_distance=int(zero["stage3_max_reuse_distance"]),
            sub_group=int(zero.get("sub_group_size", _DEFAULT_SUB_GROUP)),
            persistent=int(zero["stage3_param_persistence_threshold"]),
        )


class Setting(NamedTuple):
    """How a stage's steps are run."""

    num_workers: int
    num_tokens: int
    """Tokens of a micro-batch of full packs; of a worker's part of them if workers share it."""
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
    def sequence_parallel(self) -> int:
        """Workers that share a micro-batch."""
        return self.numbers.num_parts

    @property
    def is_own_master(self) -> bool:
        """Whether parameters are their own masters, and their gradients those of the step."""
        return self.is_plain and self.numbers.num_bytes == FLOAT32_BYTES

    def recomputed(self, num_layers: int) -> range:
        """The layers that are computed again, of a model with this number of layers."""
        return recomputed_layers(self.activation_checkpointing, num_layers)

    @classmethod
    def of(
        cls,
        config: SftConfig,
        stage_index: int,
        num_workers: int,
        on_gpu: bool,
        shape: ModelShape,
        between_nodes: bool = False,
    ) -> Self:
        """The setting of a stage with this number of workers.

        Args:
            config: the run.
            stage_index: the stage.
            num_workers: how many train it.
            on_gpu: whether they have GPUs.
            shape: the model, on which ZeRO-3's limits depend.
            between_nodes: whether the workers are in several nodes.
        """
        train = config.train
        parts = train.sequence_parallel
        num_groups = train.num_groups(num_workers)
        packs = min(packs_or_one(train.packs_per_micro_batch), math.ceil(train.packs_per_step / num_groups))
        return cls(
            num_workers,
            math.ceil(packs * config.pack_len_tokens(stage_index) / parts),
            Numbers(
                DTYPE_BYTES[config.model.dtype],
                on_gpu,
                on_gpu and config.model.kernels != "none",
                config.model.dropout == "as_configured",
                parts,
            ),
            train.activation_checkpointing,
            train.offload_activations == "cpu" and on_gpu,
            train.logits_chunk_tokens,
            state_bytes(config.stages[stage_index].optimizer.name),
            config.deepspeed.offload_optimizer == "cpu",
            config.deepspeed.offload_parameters == "cpu",
            config.checkpoint.async_ or on_gpu,
            Buckets.of(config, shape, num_workers, between_nodes),
            num_copy_ranks(config.deepspeed.hpz_partition_size, num_workers),
            may_be_plain(config, num_workers),
            packs * num_groups >= train.packs_per_step,
        )


def count_parts(shape: ModelShape) -> PartSizes:
    """The parts of a model that are whole at a time, as the engine counts them in the model itself."""
    layers = [split_elements(layer.tensors.values()) for layer in shape.layers]
    return PartSizes(max(layers, default=0), shape.head_size)
