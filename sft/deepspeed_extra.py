"""What `deepspeed.extra` may hold: DeepSpeed settings that change only its speed and memory.

Everything else is refused, with the reason: it would change the numbers, or make them depend on the number of ranks; or
it would make DeepSpeed keep state that no checkpoint saves; or it would do nothing, like a misspelt key. The list comes
from the source of DeepSpeed 0.19.8; a test trains with each allowed setting, and gets the same gradients.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple


def _is_whole(value: Any) -> bool:
    return not isinstance(value, bool) and isinstance(value, int | float) and float(value).is_integer()


class Kind(NamedTuple):
    """What a value has to be, in words, and a check of it."""

    words: str
    fits: Callable[[Any], bool]


FLAG = Kind("true or false", lambda value: isinstance(value, bool))
NUMBER = Kind("a whole number, 0 or more", lambda value: _is_whole(value) and value >= 0)
POSITIVE = Kind("a whole number, 1 or more", lambda value: _is_whole(value) and value >= 1)
NAMES = Kind("a list of names", lambda value: isinstance(value, list) and all(isinstance(v, str) for v in value))

ALLOWED: Mapping[str, Kind] = {
    "dump_state": FLAG,
    "memory_breakdown": FLAG,
    "steps_per_print": POSITIVE,
    "timers.throughput.enabled": FLAG,
    "timers.throughput.synchronized": FLAG,
    "wall_clock_breakdown": FLAG,
    "zero_optimization.contiguous_gradients": FLAG,
    "zero_optimization.enable_sanity_checks": FLAG,
    "zero_optimization.leaf_module.classes": NAMES,
    "zero_optimization.leaf_module.name_suffixes": NAMES,
    "zero_optimization.leaf_module.names": NAMES,
    "zero_optimization.log_trace_cache_warnings": FLAG,
    "zero_optimization.memory_efficient_linear": FLAG,
    "zero_optimization.offload_optimizer.pin_memory": FLAG,
    "zero_optimization.offload_param.pin_memory": FLAG,
    "zero_optimization.overlap_comm": FLAG,
    "zero_optimization.reduce_bucket_size": POSITIVE,
    "zero_optimization.reduce_scatter": FLAG,
    "zero_optimization.stage3_allgather_sequential": FLAG,
    "zero_optimization.stage3_max_live_parameters": NUMBER,
    "zero_optimization.stage3_max_reuse_distance": NUMBER,
    "zero_optimization.stage3_model_persistence_threshold": NUMBER,
    "zero_optimization.stage3_param_persistence_threshold": NUMBER,
    "zero_optimization.stage3_prefetch_bucket_size": NUMBER,
    "zero_optimization.stage3_use_all_reduce_for_fetch_params": FLAG,
    "zero_optimization.sub_group_size": POSITIVE,
}
"""The path of each setting, and what its value has to be; numbers count elements, or steps."""


class Refusal(NamedTuple):
    """One refused setting: its path in `extra`, what was given, why it is refused, and what to do instead."""

    path: str
    value: Any
    reason: str
    way_out: str


_BATCH = ("this program splits a step, the same way for every number of workers", "set train.packs_per_step")
_STATE = ("a checkpoint holds only the state of the stage's optimizer", "set `optimizer` of a stage")
_DTYPE = ("masters and gradients are float32, so that no number depends on the number of workers", "set model.dtype")
_SUM = ("gradients are summed in float32 and divided by the step's supervised tokens, for every split", "remove it")
_CHECKPOINT = ("DeepSpeed's own checkpoints are not used", "set what you want in the section `checkpoint`")
_MONITOR = ("DeepSpeed would write the loss of one micro-batch of one worker", "see `logging`, and metrics.jsonl")
_ROUNDED = ("it rounds what workers send, so the numbers would depend on their number", "remove it")
_OFFLOADED = ("DeepSpeed may then keep state that no checkpoint saves", "set deepspeed.{} to cpu, or remove it")
_STAGE_2 = ("only other stages of ZeRO read it; in stage 3 it would do nothing", "remove it")
_MICS = ("checkpoints expect a part of each parameter on each worker", "see deepspeed.hpz_partition_size")

_REASONS: Mapping[str, tuple[str, str]] = {
    **dict.fromkeys(("train_batch_size", "train_micro_batch_size_per_gpu"), _BATCH),
    **dict.fromkeys(("gradient_accumulation_steps", "managed_gradient_accumulation"), _BATCH),
    **dict.fromkeys(("optimizer", "scheduler", "zero_allow_untested_optimizer", "zero_force_ds_cpu_optimizer"), _STATE),
    "gradient_clipping": ("the limit belongs to a stage", "set max_grad_norm in `optimizer` of a stage"),
    **dict.fromkeys(("amp", "bf16", "data_types", "fp16", "torch_autocast"), _DTYPE),
    **dict.fromkeys(("communication_data_type", "seq_parallel_communication_data_type", "sparse_gradients"), _SUM),
    **dict.fromkeys(("gradient_allreduce_op", "gradient_predivide_factor", "prescale_gradients"), _SUM),
    "activation_checkpointing": ("the models are those of transformers", "set train.activation_checkpointing"),
    **dict.fromkeys(("checkpoint", "datastates_ckpt", "load_universal_checkpoint", "nebula"), _CHECKPOINT),
    **dict.fromkeys(("comet", "csv_monitor", "tensorboard", "wandb"), _MONITOR),
    "aio": ("it belongs to offloading to NVMe, whose state no checkpoint saves", "remove it"),
    "zero_optimization.stage": (_MICS[0], "remove it: it is 3"),
    **dict.fromkeys(("zero_optimization.mics_shard_size", "zero_optimization.mics_hierarchical_params_gather"), _MICS),
    "zero_optimization.zero_hpz_partition_size": ("it has a field of its own", "set deepspeed.hpz_partition_size"),
    **{
        f"zero_optimization.zero_quantized_{what}": _ROUNDED
        for what in ("gradients", "nontrainable_weights", "weights")
    },
    "zero_optimization.stage3_module_granularity_threshold": (
        "it also joins modules that run by themselves, and the backward pass fails",
        "name the modules to join in leaf_module",
    ),
    "zero_optimization.offload_optimizer": (_OFFLOADED[0], _OFFLOADED[1].format("offload_optimizer")),
    "zero_optimization.offload_param": (_OFFLOADED[0], _OFFLOADED[1].format("offload_parameters")),
    "zero_optimization.cpu_offload": (_OFFLOADED[0], _OFFLOADED[1].format("offload_optimizer")),
    "zero_optimization.cpu_offload_param": (_OFFLOADED[0], _OFFLOADED[1].format("offload_parameters")),
    "zero_optimization.zenflow": ("it delays updates, with state that no checkpoint saves", "remove it"),
    **{
        f"zero_optimization.{what}": _CHECKPOINT
        for what in (
            *("elastic_checkpoint", "load_from_fp32_weights", "pipeline_loading_checkpoint"),
            *("stage3_gather_16bit_weights_on_model_save", "stage3_gather_fp16_weights_on_model_save"),
        )
    },
    **{
        f"zero_optimization.{what}": _STAGE_2
        for what in (
            *("allgather_bucket_size", "allgather_partitions", "compute_grad_norm", "ignore_unused_parameters"),
            *("legacy_stage1", "parameter_alignment", "round_robin_gradients", "use_multi_rank_bucket_allreduce"),
        )
    },
}


def refused(extra: Mapping[str, Any], under: str = "") -> Iterator[Refusal]:
    """The settings that are refused, each with its reason."""
    for key, value in extra.items():
        path = f"{under}{key}"
        if "." in str(key):  # it would look like the path of a setting
            yield Refusal(path, value, "holds a dot", "write the part after the dot as a key below the part before it")
        elif path in ALLOWED:
            if not ALLOWED[path].fits(value):
                yield Refusal(path, value, f"must be {ALLOWED[path].words}", _way_to_correct(value))
        elif isinstance(value, Mapping) and any(known.startswith(f"{path}.") for known in ALLOWED):
            yield from refused(value, f"{path}.")
        else:
            yield Refusal(path, value, *_reason(path))


def _way_to_correct(value: Any) -> str:
    if value == "auto":
        return "remove it: `auto` is for the Trainer of transformers"
    return "write it without an exponent" if isinstance(value, str) and value[:1].isdigit() else "correct it"


def _reason(path: str) -> tuple[str, str]:
    parts = path.split(".")
    for length in range(len(parts), 0, -1):
        if found := _REASONS.get(".".join(parts[:length])):
            return found
    siblings = sorted({known.split(".")[len(parts) - 1] for known in ALLOWED if _is_beside(known, parts)})
    way_out = f"remove it, or use one of {', '.join(siblings)}"
    return "is not known to leave the numbers and the checkpoints as they are", way_out


def _is_beside(known: str, parts: list[str]) -> bool:
    return known.split(".")[: len(parts) - 1] == parts[:-1]
