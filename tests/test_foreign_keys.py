"""A key of another system is answered with the one that does it here, and its value where that can be converted."""

from functools import cache
from typing import Any

import pytest
from pydantic import TypeAdapter

from sft.config import SftConfig
from sft.config_file import build_config, find_problems, read_overrides
from sft.config_rules import Problem
from sft.foreign.answers import COMMON_NAMES, identify
from sft.foreign.keys import DEFAULTS, KEYS, SAME_MATTER, SYSTEMS
from sft.job_config import ClusterConfig

LEAST: dict[str, Any] = {
    "run": {"name": "least", "dir": "runs/least"},
    "model": {"path": "owner/model"},
    "data": {"sources": [{"name": "only", "path": "owner/data", "format": "messages"}]},
    "stages": [{"name": "only", "budget": {"epochs": 1}, "optimizer": {"lr": 1e-5}}],
}
ODD_VALUES: list[Any] = [
    None,
    True,
    False,
    0,
    -1,
    3,
    0.5,
    1e400,
    float("nan"),
    "",
    "no",
    "2e-5",
    "x",
    [],
    ["x"],
    {},
    {"x": 1},
]


def problem_of(name: str, value: Any, **beside: Any) -> Problem:
    return next(p for p in find_problems({**LEAST, name: value, **beside}) if p.path == name)


@cache
def schema_of(section: type) -> dict[str, Any]:
    schema: dict[str, Any] = TypeAdapter(section).json_schema(by_alias=True)
    return schema


@cache
def is_a_field(path: str) -> bool:
    in_cluster = path.startswith("cluster.")
    schema = schema_of(ClusterConfig if in_cluster else SftConfig)
    nodes = [schema]
    for key in path.removeprefix("cluster.").split("."):
        children = [node["items"] if key == "0" else node["properties"][key] for node in nodes if has(node, key)]
        options = [option for child in children for option in (child, *child.get("anyOf", ()), *child.get("oneOf", ()))]
        nodes = [schema["$defs"][o["$ref"].rpartition("/")[2]] if "$ref" in o else o for o in options]
    return bool(nodes)


def has(node: dict[str, Any], key: str) -> bool:
    return "items" in node if key == "0" else key in node.get("properties", {})


def test_what_a_key_is_here_is_there() -> None:
    assert is_a_field("stages.0.optimizer.lr")
    assert not is_a_field("stages.0.optimizer.learning_rate")
    for name, key in KEYS.items():
        places = [place for place in key.ours.split(", ") if place]
        assert [place for place in places if not is_a_field(place)] == [], name
        assert places or key.note, f"{name} has no equal, and nobody says why"
        assert key.systems
    assert [name for name, ours in COMMON_NAMES.items() if not all(map(is_a_field, ours.split(", ")))] == []
    assert not COMMON_NAMES.keys() & KEYS.keys()


def test_a_conversion_answers_whatever_stands_there() -> None:
    more = {"max_steps": 10, "num_epochs": 2, "lr_scheduler_kwargs": {"min_lr": 1}}
    for name, key in KEYS.items():
        for value in ODD_VALUES:
            for beside in ({name: value}, {**more, name: value}):
                ours = key.convert(value, beside)
                assert ours is None or all(map(is_a_field, ours)), (name, value)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("batch_size", 32, "`train.packs_per_step=32`"),
        ("per_device_train_batch_size", 4, "`train.packs_per_step=4`"),
        ("micro_batch_size", 2, "`train.packs_per_step=2`"),
        ("learning_rate", "2e-5", "`stages.0.optimizer.lr=2e-05`"),
        ("gradient_accumulation_steps", 8, "`train.packs_per_step=8`"),
        ("cutoff_len", 512, "`data.max_len_tokens=512` and `train.pack_len_tokens=512`"),
        ("max_seq_length", 512, "`data.max_len_tokens=512`"),
        ("max_length", 512, "`data.max_len_tokens=512`"),
        ("sequence_len", 512, "`data.max_len_tokens=512`"),
        ("val_set_size", 0.05, "`data.holdout.share=0.05`"),
        ("val_set_size", 100, "`data.holdout.share`: a part of the prompts"),
        ("output_dir", "out", "`run.dir=out`"),
        ("warmup_steps", 10, "`stages.0.optimizer.warmup_steps=10`"),
        ("warmup_steps", 0.1, "`stages.0.optimizer.warmup_ratio=0.1`"),
        ("num_train_epochs", 3, "`stages.0.budget.epochs=3`"),
        ("num_epochs", 3, "`stages.0.budget.epochs=3`"),
        ("max_steps", 200, "`stages.0.budget.steps=200`"),
        ("template", "chatml", "`model.chat_template=chatml`"),
        ("template", "qwen", "`model.chat_template`: the tokenizer's own"),
        ("base_model", "a/b", "`model.path=a/b`"),
        ("model_name_or_path", "a/b", "`model.path=a/b`"),
        ("datasets", [{"path": "a"}], "`data.sources`"),
        ("dataset", "alpaca", "`data.sources`"),
        ("bf16", "auto", "`model.dtype=bfloat16`"),
        ("bf16", False, "`model.dtype=float32`"),
        ("lr_scheduler_type", "constant_with_warmup", "`stages.0.optimizer.schedule=constant`"),
        ("weight_decay", 0.1, "`stages.0.optimizer.weight_decay=0.1`"),
        ("save_steps", 500, "`checkpoint.every_steps=500`"),
        ("eval_steps", 50, "`evaluate.every_steps=50`"),
        ("evals_per_epoch", 4, "`evaluate.every_epochs=0.25`"),
        ("packing", True, "`train.packing`"),
        ("sample_packing", True, "`train.packing`"),
        ("neftune_noise_alpha", 5, "no equal"),
        ("adapter", "lora", "no equal here: all parameters are trained"),
        ("lora_r", 8, "no equal here: all parameters are trained"),
        ("seed", 3, "`run.seed=3`"),
        ("logging_steps", 10, "take it away: every step is recorded"),
        ("report_to", "tensorboard", "`logging.tensorboard=true`"),
        (
            "report_to",
            ["wandb", "mlflow"],
            "`logging.wandb.project=huggingface` and `logging.mlflow.experiment=Default`",
        ),
        ("wandb_project", "tuning", "`logging.wandb.project=tuning`"),
        ("mlflow_tracking_uri", "http://host", "`logging.mlflow.tracking_uri=http://host`"),
        ("optim", "lion_32bit", "`stages.0.optimizer.name=lion`"),
        ("optimizer", "paged_adamw_8bit", "`stages.0.optimizer.name`: `adamw` or `lion`"),
        ("train_on_inputs", True, "the answers only"),
        ("adam_beta2", 0.99, "`stages.0.optimizer.betas=[0.9, 0.99]`"),
    ],
)
def test_a_key_that_people_bring_along_is_answered(name: str, value: Any, words: str) -> None:
    problem = problem_of(name, value)
    assert words in problem.way_out
    assert problem.rule.startswith("is a key of ")
    assert problem.rule.endswith(", not of this program")


def test_what_several_keys_say_together_is_converted_together() -> None:
    problem = problem_of("gradient_accumulation_steps", 8, per_device_train_batch_size=4)
    assert "`train.packs_per_step=32`" in problem.way_out
    assert "`evaluate.every_epochs=0.3`" in problem_of("eval_steps", 0.1, num_train_epochs=3).way_out


def test_a_key_is_answered_wherever_it_stands() -> None:
    content, _ = read_overrides(
        LEAST,
        ["stages.0.optimizer={learning_rate: 1e-5}", "data.cutoff_len=9", "data.sources.0.field_messages=turns"],
    )
    found = {problem.path: problem.way_out for problem in find_problems(content)}
    assert found["stages.0.optimizer.learning_rate"] == "here it is `stages.0.optimizer.lr=1e-05`"
    assert "`data.max_len_tokens=9`" in found["data.cutoff_len"]
    assert found["data.sources.0.field_messages"] == "here it is `columns: {messages: …}`"
    assert len(found) == 3, "that `lr` is missing goes without saying"


def test_a_file_of_deepspeed_is_no_section() -> None:
    (problem,) = find_problems({**LEAST, "deepspeed": "ds_z3_config.json"})
    assert (problem.rule, problem.value) == ("a section, not a file; ZeRO-3 is always on", "ds_z3_config.json")


def test_a_misspelt_key_of_ours_is_still_ours() -> None:
    assert problem_of("stage", []).way_out == "did you mean `stages`?"


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_config_of_another_system_is_one_problem(system: Any) -> None:
    content = {name: 1 for name, key in KEYS.items() if key.systems == {system}}
    assert identify(content) == [system]
    (problem,) = find_problems(content)
    assert SYSTEMS[system] in problem.rule
    assert "sft convert" in problem.way_out


@pytest.mark.parametrize("system", SYSTEMS)
def test_the_defaults_of_a_system_are_converted(system: Any) -> None:
    for name, value in DEFAULTS[system].items():
        assert system in KEYS[name].systems
        assert KEYS[name].convert(value, DEFAULTS[system]) != {}, name
    assert all(name in KEYS for matter in SAME_MATTER for name in matter)
    assert build_config(LEAST)
