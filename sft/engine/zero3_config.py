"""DeepSpeed's config for a stage: a pure function of ours, with the user's `deepspeed.extra` merged in last."""

import math
from collections.abc import Mapping
from typing import Any

from sft.config import SftConfig
from sft.recomputed_layers import recomputes_all
from sft.world import World


def build_zero3_config(config: SftConfig, max_grad_norm: float, world: World) -> dict[str, Any]:
    """The dictionary for `deepspeed.initialize` and `zero.Init`.

    The engine, not DeepSpeed, controls accumulation, so no number in training depends on the world size.
    """
    zero: dict[str, Any] = {
        "stage": 3,
        "overlap_comm": world.on_gpu,
        "contiguous_gradients": True,
        "stage3_gather_16bit_weights_on_model_save": False,
        "reduce_bucket_size": 100_000_000,
        "stage3_prefetch_bucket_size": 100_000_000,
        "memory_efficient_linear": keeps_gathered_weights(config, world),
    }
    if config.deepspeed.offload_optimizer == "cpu":
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": world.on_gpu}
    if config.deepspeed.offload_parameters == "cpu":
        zero["offload_param"] = {"device": "cpu", "pin_memory": world.on_gpu}
    copy_size = num_copy_ranks(config.deepspeed.hpz_partition_size, world.size)
    if copy_size > 1:
        zero["zero_hpz_partition_size"] = copy_size
    built = {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": max_grad_norm,
        "bf16": {"enabled": config.model.dtype == "bfloat16"},
        "zero_optimization": zero,
        # Gradients are summed over ranks and micro-batches in float32: in bfloat16 the sum would depend on the split.
        "communication_data_type": "fp32",
        "data_types": {"grad_accum_dtype": "fp32"},
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": 1 << 30,
        # It would wait for the device at every forward pass, and its figures are shown nowhere.
        "timers": {"throughput": {"enabled": False}},
    }
    return merged(built, config.deepspeed.extra)


def keeps_gathered_weights(config: SftConfig, world: World) -> bool:
    """Whether autograd would keep the gathered weights of linear layers from the forward to the backward pass.

    Then DeepSpeed's own linear function is needed, which finds them again. It costs the host several times as much as
    torch's. Activations that are computed again keep nothing; a single rank gathers nothing.
    """
    is_gathering = world.size > 1 or (world.on_gpu and config.deepspeed.offload_parameters == "cpu")
    return is_gathering and not recomputes_all(config.train.activation_checkpointing)


def num_copy_ranks(wanted: int, world_size: int) -> int:
    """How many ranks share a copy of the parameters under hpZ, if `wanted` were asked for; 1: there is no copy.

    An elastic job may run with any number of ranks, and DeepSpeed needs groups of one size. If all ranks were one
    group, the copy would be what they have anyway.
    """
    size = math.gcd(wanted, world_size)
    return size if size < world_size else 1


def merged(base: Mapping[str, Any], extra: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with the values of `extra` merged in, also in nested mappings."""
    whole = dict(base)
    for key, value in extra.items():
        nested = isinstance(value, Mapping) and isinstance(whole.get(key), Mapping)
        whole[key] = merged(whole[key], value) if nested else value
    return whole
