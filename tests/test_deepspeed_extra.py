"""`deepspeed.extra` takes what changes only speed and memory, and refuses the rest with its reason."""

import copy
from typing import Any

import pytest

from sft.config_file import ConfigError, build_config
from sft.deepspeed_extra import ALLOWED, FLAG, NAMES, refused

LEAST: dict[str, Any] = {
    "run": {"name": "least", "dir": "runs/least"},
    "model": {"path": "owner/model"},
    "data": {"sources": [{"name": "only", "path": "owner/data", "format": "messages"}]},
    "stages": [{"name": "only", "budget": {"epochs": 1}, "optimizer": {"lr": 1e-5}}],
}


def at_path(path: str, value: Any) -> dict[str, Any]:
    for key in reversed(path.split(".")):
        value = {key: value}
    return value


def refusals(extra: dict[str, Any]) -> list[tuple[str, str]]:
    return [(refusal.path, f"{refusal.reason}; {refusal.way_out}") for refusal in refused(extra)]


@pytest.mark.parametrize(
    ("extra", "path", "said"),
    [
        ({"zero_optimization": {"stage": 2}}, "zero_optimization.stage", "it is 3"),
        ({"zero_optimization": {"mics_shard_size": 8}}, "zero_optimization.mics_shard_size", "hpz_partition_size"),
        (
            {"zero_optimization": {"zero_hpz_partition_size": 8}},
            "zero_optimization.zero_hpz_partition_size",
            "set deepspeed.hpz_partition_size",
        ),
        (
            {"zero_optimization": {"offload_optimizer": {"device": "nvme", "pin_memory": True}}},
            "zero_optimization.offload_optimizer.device",
            "no checkpoint saves; set deepspeed.offload_optimizer to cpu",
        ),
        (
            {"zero_optimization": {"offload_param": {"nvme_path": "/nvme"}}},
            "zero_optimization.offload_param.nvme_path",
            "set deepspeed.offload_parameters to cpu",
        ),
        (
            {"zero_optimization": {"offload_optimizer": {"ratio": 0.3}}},
            "zero_optimization.offload_optimizer.ratio",
            "no checkpoint saves",
        ),
        ({"zero_optimization": {"zero_quantized_weights": True}}, "zero_optimization.zero_quantized_weights", "rounds"),
        (
            {"zero_optimization": {"stage3_module_granularity_threshold": 1000}},
            "zero_optimization.stage3_module_granularity_threshold",
            "leaf_module",
        ),
        ({"zero_optimization": {"zenflow": {}}}, "zero_optimization.zenflow", "no checkpoint saves"),
        ({"zero_optimization": {"allgather_bucket_size": 5}}, "zero_optimization.allgather_bucket_size", "nothing"),
        ({"prescale_gradients": True}, "prescale_gradients", "summed in float32"),
        ({"communication_data_type": "bf16"}, "communication_data_type", "summed in float32"),
        ({"gradient_allreduce_op": "sum"}, "gradient_allreduce_op", "summed in float32"),
        ({"fp16": {"enabled": True, "loss_scale": 0}}, "fp16", "set model.dtype"),
        ({"data_types": {"grad_accum_dtype": "bf16"}}, "data_types", "set model.dtype"),
        ({"torch_autocast": {"enabled": True}}, "torch_autocast", "set model.dtype"),
        ({"gradient_clipping": 1.0}, "gradient_clipping", "max_grad_norm"),
        ({"train_batch_size": 32}, "train_batch_size", "packs_per_step"),
        ({"optimizer": {"type": "Muon"}}, "optimizer", "only the state of the stage's optimizer"),
        ({"checkpoint": {"load_universal": True}}, "checkpoint", "DeepSpeed's own checkpoints"),
        ({"wandb": {"enabled": True}}, "wandb", "see `logging`"),
        ({"compression_training": {}}, "compression_training", "is not known to leave the numbers"),
        ({"steps_per_prnt": 10}, "steps_per_prnt", "steps_per_print"),
        ({"zero_optimization": {"overlap_com": True}}, "zero_optimization.overlap_com", "overlap_comm"),
        ({"zero_optimization.overlap_comm": True}, "zero_optimization.overlap_comm", "below the part before it"),
        ({"zero_optimization": {"reduce_bucket_size": "auto"}}, "zero_optimization.reduce_bucket_size", "`auto`"),
        ({"zero_optimization": {"reduce_bucket_size": "5e8"}}, "zero_optimization.reduce_bucket_size", "exponent"),
        (
            {"zero_optimization": {"leaf_module": {"classes": "Block"}}},
            "zero_optimization.leaf_module.classes",
            "must be a list of names; correct it",
        ),
        ({"zero_optimization": {"reduce_bucket_size": True}}, "zero_optimization.reduce_bucket_size", "whole number"),
        ({"zero_optimization": {"sub_group_size": float("inf")}}, "zero_optimization.sub_group_size", "whole number"),
        ({"zero_optimization": {"overlap_comm": "no"}}, "zero_optimization.overlap_comm", "true or false"),
        ({"zero_optimization": True}, "zero_optimization", "is not known to leave"),
        ({"steps_per_print": 0}, "steps_per_print", "1 or more"),
    ],
)
def test_what_would_change_more_than_speed_is_refused_with_its_reason(
    extra: dict[str, Any], path: str, said: str
) -> None:
    [(found, why)] = refusals(extra)
    assert found == path
    assert said in why


@pytest.mark.parametrize("path", ALLOWED)
def test_what_changes_speed_or_memory_is_taken(path: str) -> None:
    value = True if ALLOWED[path] is FLAG else ["Block"] if ALLOWED[path] is NAMES else 1
    assert refusals(at_path(path, value)) == []
    assert refusals(at_path(path, None)) != []


def test_all_that_is_refused_is_said_at_once_and_where() -> None:
    content = copy.deepcopy(LEAST)
    content["deepspeed"] = {"extra": {"fp16": {}, "zero_optimization": {"stage": 1, "sub_group_size": 10**9}}}
    with pytest.raises(ConfigError) as caught:
        build_config(content)
    paths = sorted(problem.path for problem in caught.value.problems)
    assert paths == ["deepspeed.extra.fp16", "deepspeed.extra.zero_optimization.stage"]


def test_deepspeed_itself_knows_each_setting_that_is_taken() -> None:
    """One that it has renamed would do nothing."""
    from deepspeed.runtime.zero.config import DeepSpeedZeroConfig  # noqa: PLC0415  (seconds)

    known = {field.alias or name for name, field in DeepSpeedZeroConfig.model_fields.items()}
    taken = {path.split(".")[1] for path in ALLOWED if path.startswith("zero_optimization.")}
    assert taken <= known
