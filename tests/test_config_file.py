"""A config is read whole, or everything that is wrong with it is said at once: where, what, why, and the way out."""

from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from sft.config import SftConfig
from sft.config_file import ConfigError, build_config, dump_config, quote_overrides, read_overrides, read_yaml
from sft.config_rules import RULES, Problem
from sft.config_yaml import parse_yaml, write_yaml
from sft.errors import UserError
from sft.job_config import load_job
from sft.optimizers import OPTIMIZERS

# Every key that there is stands in it once.
FULL: dict[str, Any] = {
    "run": {"name": "full", "dir": "runs/full", "seed": 3},
    "model": {
        "path": "owner/model",
        "tokenizer": "owner/tokenizer",
        "dtype": "float32",
        "chat_template": "chatml",
        "turn_end": "auto",
        "dropout": "none",
        "kernels": "none",
        "trust_remote_code": False,
        "trust_tokenizer_code": False,
    },
    "from": {
        "run": "runs/old",
        "stage": "early",
        "step": 70,
        "model": "owner/model",
        "checkpoints": "s3://bucket/old",
        "manifest_sha256": "0f",
        "mixtures": {"early": {"rates": "natural"}},
    },
    "data": {
        "sources": [
            {
                "name": "first",
                "path": "owner/data",
                "split": "train",
                "subset": "main",
                "revision": "v1",
                "format": "instruction",
                "columns": {"input": "context"},
                "csv": {"delimiter": ";", "quote": "'"},
                "max_records": 100,
                "task": {"column": "category", "default": "other"},
                "constructed": True,
                "approve": {"sample": 0.05, "seed": 3},
                "grading": {
                    **{
                        "references": "also",
                        "options": "choices",
                        "tests": "checks",
                        "setup_code": "before",
                        "entry_point": "name",
                    },
                    **{"marks": "helpful", "rejected": "worse"},
                },
            },
            {"name": "second", "path": "data/second.jsonl", "format": "messages", "task": "chat"},
        ],
        "max_len_tokens": 512,
        "overlong": "drop",
        "bad_records": "stop",
        "unreviewed": False,
        "max_bad_share": 0.01,
        "duplicates": "remove_near",
        "near_duplicate_similarity": 0.9,
        "turns": "repair",
        "train_on": "all_assistant",
        "train_on_thoughts": False,
        "task_tag": {"text": "This is {task}.", "texts": {"chat": "a talk"}, "dropout": 0.2},
        "holdout": {
            "share": 0.1,
            "tasks": ["held"],
            "sources": ["second"],
            "decontaminate": "remove",
            "ngram_tokens": 20,
        },
        "clusters": {"talk": ["chat"], "other": ["code", "held"]},
        "cache_dir": "cache",
        "staging": "node_local",
        "staging_dir": "/scratch/sft",
    },
    "stages": [
        {
            "name": "broad",
            "mixture": {
                "rates": "temperature",
                "temperature": 2.0,
                "tasks": ["chat", "code"],
                "unit": "examples",
                "cap": 1000,
                "min_share": 0.01,
                "max_epochs_per_task": 4,
            },
            "budget": {"epochs": 1.5},
            "optimizer": {
                "name": "adamw",
                "lr": 1e-4,
                "schedule": "linear",
                "warmup_ratio": 0.1,
                "min_lr_ratio": 0.1,
                "weight_decay": 0.1,
                "betas": [0.9, 0.99],
                "eps": 1e-7,
                "max_grad_norm": 2.0,
            },
            "pack_len_tokens": 512,
        },
        {
            "name": "narrow",
            "mixture": {"rates": "weights", "weights": {"code": 2, "chat": 1}, "replay": {"broad": 0.25}},
            "budget": {"steps": 10},
            "optimizer": {"lr": 1e-5, "warmup_steps": 2},
        },
        {"name": "last", "budget": {"supervised_tokens": 10_000, "tokens": None}, "optimizer": {"lr": 1e-6}},
    ],
    "train": {
        "pack_len_tokens": 1024,
        "packs_per_step": 8,
        "packs_per_micro_batch": 2,
        "packing": "one_example",
        "activation_checkpointing": 0.5,
        "offload_activations": "cpu",
        "engine": "zero3",
        "flash_attention": 2,
        "deterministic": True,
        "sequence_parallel": 1,
        "logits_chunk_tokens": 512,
        "non_finite": "skip",
        "max_skipped_steps": 3,
    },
    "deepspeed": {
        "offload_optimizer": "cpu",
        "offload_parameters": "none",
        "hpz_partition_size": 2,
        "gather": "module",
        "extra": {"zero_optimization": {"overlap_comm": True}},
    },
    "checkpoint": {
        "every_steps": 5,
        "every_epochs": None,
        "every_minutes": 10.0,
        "keep_last": 3,
        "keep_every_steps": 50,
        "keep_stage_ends": False,
        "best": {"score": "exact_match@3", "task": "maths", "stop_when_flat": 4},
        "max_failed_saves": 2,
        "dir": "s3://bucket/run",
        "check_export": True,
        "async": False,
    },
    "evaluate": {
        "every_steps": 5,
        "every_epochs": None,
        "max_examples_per_task": 10,
        "before_training": True,
        "sample_answers": 2,
        "answers_per_task": 5,
        "shots": [0, 3],
        "shots_as": "text",
        "tag": "always",
        "max_new_tokens": 64,
        "temperature": 0.5,
        "top_p": 0.9,
        "copy_model": "never",
        "max_minutes": 5.0,
        "tasks": {
            "maths": {"score": "number", "options": ["1", "2"], "shots": [1], "max_answers": 3, "max_new_tokens": 9}
        },
        "retain": {
            "sources": ["first"],
            "tasks": ["chat"],
            "score": "token_accuracy",
            "max_drop": 0.05,
            "action": "stop",
        },
        "allow_code": True,
    },
    "logging": {
        "tensorboard": False,
        "wandb": {"project": "tuning", "entity": "team", "tags": ["small", "first"]},
        "mlflow": {"tracking_uri": "https://mlflow.example.org", "experiment": "tuning"},
    },
    "alerts": {"url": "$WEBHOOK"},
}

LEAST: dict[str, Any] = {
    "run": {"name": "least", "dir": "runs/least"},
    "model": {"path": "owner/model"},
    "data": {"sources": [{"name": "only", "path": "owner/data", "format": "messages"}]},
    "stages": [{"name": "only", "budget": {"epochs": 1}, "optimizer": {"lr": 1e-5}}],
}

# Mappings whose keys the user makes up.
FREE = ("columns", "texts", "weights", "replay", "extra", "mixtures", "clusters")


def override(content: dict[str, Any], assignments: list[str]) -> dict[str, Any]:
    return read_overrides(content, assignments)[0]


def problems_of(content: Any) -> list[Problem]:
    with pytest.raises(ConfigError) as caught:
        build_config(content, "here.yaml")
    return list(caught.value.problems)


def only_problem(base: dict[str, Any], *assignments: str) -> Problem:
    problems = problems_of(override(base, assignments))
    assert len(problems) == 1, problems
    return problems[0]


def key_places(node: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The place of every key of a model, as the keys and indices that lead to it."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield (*place, key)
            if key == "tasks" and isinstance(value, dict):  # sections by the names of tasks
                for name, section in value.items():
                    yield from key_places(section, (*place, key, name))
            elif key not in FREE:
                yield from key_places(value, (*place, key))
    if isinstance(node, list):
        for i, item in enumerate(node):
            yield from key_places(item, (*place, i))


def at(content: Any, place: tuple[Any, ...]) -> Any:
    for key in place:
        content = content[key]
    return content


# ---------------------------------------------------------------- what is right


def test_every_key_there_is_can_be_given() -> None:
    config = build_config(FULL)
    given_keys = {place[-1] for place in key_places(FULL)}
    schema = SftConfig.model_json_schema(by_alias=True)
    known = {key for model in (schema, *schema["$defs"].values()) for key in model.get("properties", {})}
    assert known == given_keys, "FULL holds every key, so that the tests below misspell every key"
    assert config.checkpoint.async_ is False
    assert config.pack_len_tokens(0) == 512
    assert config.pack_len_tokens(1) == 1024


@pytest.mark.parametrize("content", [FULL, LEAST])
def test_a_config_reads_back_equal(content: dict[str, Any]) -> None:
    config = build_config(content)
    dumped = yaml.safe_load(dump_config(config))
    assert build_config(dumped) == config
    assert set(dumped["checkpoint"]) == set(FULL["checkpoint"]), "by the names that a person gives"
    keys = {field.alias or name for name, field in SftConfig.model_fields.items()}
    assert set(dumped) == keys, "every field is written, the defaults too"


NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,6}", fullmatch=True)
PLACES = st.text(max_size=8).filter(lambda path: path.strip() and "$" not in path and path[0] != "~")
SHARES = st.floats(0, 1)
RATES = st.one_of(
    st.just({"rates": "natural"}),
    st.fixed_dictionaries({"rates": st.just("temperature"), "temperature": st.floats(1, 100)}),
    st.fixed_dictionaries(
        {"rates": st.just("weights"), "weights": st.dictionaries(NAMES, st.floats(1e-6, 1e6), min_size=1, max_size=3)}
    ),
)
BUDGETS = st.one_of(
    st.fixed_dictionaries({"epochs": st.floats(0.01, 100)}),
    st.fixed_dictionaries({"steps": st.integers(1, 10**9)}),
    st.fixed_dictionaries({"supervised_tokens": st.integers(1, 10**12)}),
    st.fixed_dictionaries({"tokens": st.integers(1, 10**12)}),
)
STAGES = st.fixed_dictionaries(
    {
        "name": NAMES,
        "mixture": RATES,
        "budget": BUDGETS,
        "optimizer": st.fixed_dictionaries(
            {"lr": st.floats(1e-9, 1)}, optional={"warmup_ratio": SHARES, "name": st.sampled_from([*OPTIMIZERS])}
        ),
    }
)
SOURCES = st.fixed_dictionaries(
    {"name": NAMES, "path": PLACES, "format": st.sampled_from(["instruction", "messages"])},
    optional={"task": NAMES | st.fixed_dictionaries({"column": st.text(max_size=5)})},
)
CONFIGS = st.fixed_dictionaries(
    {
        "run": st.fixed_dictionaries(
            {"name": NAMES, "dir": st.sampled_from(["runs/a", "~/b c"]), "seed": st.integers()}
        ),
        "model": st.fixed_dictionaries({"path": PLACES}),
        "data": st.fixed_dictionaries(
            {"sources": st.lists(SOURCES, min_size=1, max_size=3, unique_by=lambda source: source["name"])},
            optional={"holdout": st.fixed_dictionaries({"share": st.floats(0, 1, exclude_max=True)})},
        ),
        "stages": st.lists(STAGES, min_size=1, max_size=3, unique_by=lambda stage: stage["name"]),
    },
    optional={"checkpoint": st.fixed_dictionaries({"async": st.booleans()})},
)


@settings(max_examples=25, deadline=None)
@given(CONFIGS)
def test_any_valid_config_reads_back_equal(content: dict[str, Any]) -> None:
    config = build_config(content)
    assert build_config(yaml.safe_load(dump_config(config))) == config


def test_warm_up_steps_take_the_place_of_the_ratio() -> None:
    stages = build_config(FULL).stages
    assert [(s.optimizer.warmup_ratio, s.optimizer.warmup_steps) for s in stages] == [
        (0.1, None),
        (0.0, 2),
        (0.03, None),
    ]


# ---------------------------------------------------------------- misspelt keys


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_a_misspelt_key_is_named_with_the_right_one(data: st.DataObject) -> None:
    content = data.draw(st.just(FULL) | CONFIGS)
    place = data.draw(st.sampled_from(sorted(key_places(content), key=str)).filter(lambda p: isinstance(p[-1], str)))
    key = place[-1]
    i = data.draw(st.integers(0, len(key) - 1))
    letter = data.draw(st.sampled_from("aeinstx"))
    changes = (key[:i] + key[i + 1 :], key[:i] + letter + key[i:], key[:i] + letter + key[i + 1 :])
    wrong = data.draw(st.sampled_from(changes))
    content = override(content, [])  # no part of it is in two places
    parent = at(content, place[:-1])
    assume(wrong)
    assume(wrong not in all_keys())
    parent[wrong] = parent.pop(key)
    problems = {problem.path: problem for problem in problems_of(content)}
    path = ".".join(map(str, (*place[:-1], wrong)))
    assert path in problems
    assert problems[path].value == parent[wrong]
    # One letter of three or fewer may also be a different word altogether.
    if len(key) > 3:
        assert problems[path].way_out == f"did you mean `{key}`?"
    # A short key may be taken for another, and then it is also said that the right one is missing. Without `evaluate`,
    # `checkpoint.best` names what is not measured; without `constructed`, there is nothing to approve.
    assert len(key) <= 3 or len(problems) == 1 or key in ("evaluate", "constructed")


def all_keys() -> set[Any]:
    return {place[-1] for place in key_places(FULL)}


@pytest.mark.parametrize(
    ("assignment", "path", "meant"),
    [
        ("trian.packs_per_micro_batch=1", "trian", "train"),
        ("train.packs_per_microbatch=1", "train.packs_per_microbatch", "packs_per_micro_batch"),
        ("stages.1.optimizer.warmup_rato=0.1", "stages.1.optimizer.warmup_rato", "warmup_ratio"),
        ("data.sources.second.colums={}", "data.sources.1.colums", "columns"),
        ("data.sources.first.task.colum=x", "data.sources.0.task.colum", "column"),
        ("data.holdout.shares=0.1", "data.holdout.shares", "share"),
        ("checkpoint.asinc=true", "checkpoint.asinc", "async"),
    ],
)
def test_a_misspelt_key_is_found_at_every_depth(assignment: str, path: str, meant: str) -> None:
    problem = only_problem(FULL, assignment)
    assert (problem.path, problem.rule) == (path, "is not a known key")
    assert problem.way_out == f"did you mean `{meant}`?"


def test_a_misspelt_section_is_one_mistake() -> None:
    content = {{"stages": "stagse"}.get(key, key): value for key, value in LEAST.items()}
    (problem,) = problems_of(content)
    assert (problem.path, problem.way_out) == ("stagse", "did you mean `stages`?")


def test_a_key_like_no_other_is_answered_with_those_that_there_are() -> None:
    problem = only_problem(FULL, "logging.zzz=1")
    assert problem.way_out == "known here: mlflow, tensorboard, wandb"


@pytest.mark.parametrize("path", ["stages.2.name", "data.sources.1.name", "run.name"])
def test_a_name_too_long_for_a_folder_is_refused(path: str) -> None:
    problem = only_problem(FULL, f"{path}={'a' * 300}")
    assert problem.rule.startswith("must have at most 100 characters")


def test_a_misspelt_key_with_a_dot_keeps_its_whole_name() -> None:
    content = deepcopy(FULL)
    content["train"]["packs_per.micro_batch"] = 1
    (problem,) = problems_of(content)
    assert problem == (
        "train.packs_per.micro_batch",
        1,
        "is not a known key",
        "did you mean `packs_per_micro_batch`?",
        problem.also_about,
    )


# ---------------------------------------------------------------- wrong values


@pytest.mark.parametrize(
    ("assignment", "path", "rule", "way_out"),
    [
        (
            "train.packs_per_micro_batch=two",
            "train.packs_per_micro_batch",
            "must be auto, or a whole number ≥ 1",
            "a whole number such as 8",
        ),
        ("train.packs_per_micro_batch=0", "train.packs_per_micro_batch", "must be auto, or a whole number ≥ 1", "as 8"),
        ("train.packs_per_micro_batch=auot", "train.packs_per_micro_batch", "must be auto, or", "did you mean `auto`?"),
        ("train.activation_checkpointing=1.5", "train.activation_checkpointing", "a share > 0 and ≤ 1", "0.5 half of"),
        ("train.activation_checkpointing=-1", "train.activation_checkpointing", "a whole number n ≥ 1", "2 is every"),
        ("train.activation_checkpointing=0", "train.activation_checkpointing", "must be auto, all, none", "write none"),
        ("train.activation_checkpointing=al", "train.activation_checkpointing", "must be auto, all", "mean `all`?"),
        ("train.offload_activations=gpu", "train.offload_activations", "must be none or cpu", "one of none, cpu"),
        ("train.flash_attention='3'", "train.flash_attention", "must be auto, 2, 3 or 4", "write 3, without quotes"),
        ("train.flash_attention=5", "train.flash_attention", "must be auto, 2, 3 or 4", "choose one of auto, 2, 3, 4"),
        ("train.deterministic=maybe", "train.deterministic", "must be true or false", "write true or false"),
        ("train.packs_per_step=", "train.packs_per_step", "must be a whole number", "write a whole number, such as 8"),
        ("stages.broad.optimizer.lr=-1", "stages.0.optimizer.lr", "must be greater than 0", "correct"),
        ("stages.broad.optimizer.lr=.nan", "stages.0.optimizer.lr", "must be a finite number", "correct"),
        ("stages.0.optimizer.schedule=cosin", "stages.0.optimizer.schedule", "must be cosine, linear", "mean `cosine`"),
        ("stages.0.optimizer.name=adam", "stages.0.optimizer.name", "must be adamw or lion", "mean `adamw`?"),
        ("stages.1.optimizer.lr=fast", "stages.1.optimizer.lr", "must be a number", "such as 0.5"),
        ("train.packs_per_micro_batch=automatic", "train.packs_per_micro_batch", "must be auto, or", "mean `auto`?"),
        ("data.duplicates=rem", "data.duplicates", "must be keep, remove or", "choose one of remove, remove_near"),
        ("model.dtype=bf16", "model.dtype", "must be bfloat16 or float32", "did you mean `bfloat16`?"),
        ("model.dtype=bfloat32", "model.dtype", "must be bfloat16 or float32", "did you mean `float32`?"),
        ("model.dtype=float64", "model.dtype", "must be bfloat16 or float32", "choose one of bfloat16, float32"),
        ("model.dtype=int8", "model.dtype", "must be bfloat16 or float32", "choose one of bfloat16, float32"),
        ("run.name=a b", "run.name", "letters, digits", "choose such a name"),
        ("run.dir=3", "run.dir", "must be text, but YAML reads it as a number", 'in quotes, such as "3"'),
        ("run.dir=' '", "run.dir", "is empty", "write a path"),
        ("model.path=''", "model.path", "is empty", "write a path"),
        ("data.sources.0.path=''", "data.sources.0.path", "is empty", "write a path"),
        ("data.cache_dir=''", "data.cache_dir", "is empty", "write a path"),
        ("checkpoint.dir=''", "checkpoint.dir", "is empty", "write a path"),
        ("data.sources.0.path=", "data.sources.0.path", "reads it as nothing (like ~", "write a value"),
        ("data.sources.0.path=~", "data.sources.0.path", "reads it as nothing (like ~", "write a value"),
        ("run.name=2024", "run.name", "reads it as a number", 'such as "2024"'),
        ("run.name=1.10", "run.name", "reads it as a number", "in quotes"),
        ("run.name=2024-01-31", "run.name", "reads it as a date", 'such as "2024-01-31"'),
        ("data.sources.0.task=true", "data.sources.0.task", "reads it as true or false", '"true"'),
        ("data.sources.0.revision=1234567", "data.sources.0.revision", "reads it as a number", '"1234567"'),
        ("data.holdout.tasks=[2024]", "data.holdout.tasks.0", "reads it as a number", '"2024"'),
        ("data.holdout.share=1.5", "data.holdout.share", "less than 1", "correct"),
        ("data.holdout.tasks=one", "data.holdout.tasks", "must be a list", "write a list, such as [one]"),
        ("data.sources=[]", "data.sources", "must have at least 1 item, not 0", "correct"),
        ("data.sources.0.task.column=3", "data.sources.0.task.column", "must be text", "in quotes"),
        ('data.sources.0.task=" a"', "data.sources.0.task", "one line, without spaces around it", "choose such a name"),
        ("data.sources.0.columns.input=3", "data.sources.0.columns.input", "must be text", "in quotes"),
        ("stages.0.optimizer.betas=[0.9]", "stages.0.optimizer.betas", "item 2 is missing", "longer"),
        ("stages.0.optimizer.betas=[1, 1, 1]", "stages.0.optimizer.betas", "at most 2 items, not 3", "correct"),
        ("stages.1.mixture.weights.code=0", "stages.1.mixture.weights.code", "must be greater than 0", "correct"),
        ("train=", "train", "must be a mapping of fields", "packs_per_step"),
        ("model=Qwen/Qwen2.5-0.5B", "model", "must be a mapping of fields", "such as {path: Qwen/Qwen2.5-0.5B}"),
        ("data.holdout=0.1", "data.holdout", "must be a mapping of fields", "such as {share: 0.1}, or remove it"),
        ("stages.0.budget=2", "stages.0.budget", "must be a mapping of fields", "such as {epochs: 2}, or remove"),
        ("stages.0.budget=2 epochs", "stages.0.budget", "must be a mapping of fields", "such as {epochs: …}, or"),
        ("stages.0.optimizer=lion", "stages.0.optimizer", "must be a mapping", "such as {lr: …, name: lion}, or"),
        ("stages.0.mixture=equal", "stages.0.mixture", "must be a mapping of fields", "such as {rates: equal}"),
        ("logging.wandb=true", "logging.wandb", "must be a mapping of fields", "such as {project: …}, or"),
        ("data.sources=a/b.csv", "data.sources", "must be a list", "such as [{name: …, path: a/b.csv}]"),
        ("stages.0.optimizer.betas=0.9", "stages.0.optimizer.betas", "must be a list", "such as [0.9, 0.9]"),
        ("lr=1e-5", "lr", "is not a known key", "here it is `stages.0.optimizer.lr`"),
        ("stages.1.epochs=3", "stages.1.epochs", "is not a known key", "here it is `stages.1.budget.epochs`"),
        ("max_seq_len=8", "max_seq_len", "is not a known key", "`data.max_len_tokens` and `train.pack_len_tokens`"),
        ("stages.1.n_epochs=3", "stages.1.n_epochs", "is not a known key", "here it is `stages.1.budget.epochs`"),
        ("data_path=a.csv", "data_path", "is not a known key", "here it is `data.sources.0.path`"),
        ("num_gpus=8", "num_gpus", "is not a known key", "here it is `cluster.workers`"),
        ("data.sources.0.format=alpaca", "data.sources.0.format", "must be auto, ", "did you mean `instruction`?"),
        ("train.tokenizer=a", "train.tokenizer", "is not a known key", "here it is `model.tokenizer`"),
        ("stages.2=[]", "stages.2", "must be a mapping of fields", "budget"),
        ("deepspeed.extra=3", "deepspeed.extra", "must be a mapping", "write a mapping, such as {one: 1, two: 2}"),
        ("stages.2={name: last, budget: {steps: 1}}", "stages.2.optimizer", "is needed", "add `stages.2.optimizer`"),
    ],
)
def test_a_wrong_value_is_one_problem_with_its_rule_and_a_way_out(
    assignment: str, path: str, rule: str, way_out: str
) -> None:
    problem = only_problem(FULL, assignment)
    assert problem.path == path
    assert rule in problem.rule
    assert way_out in problem.way_out
    assert "pydantic" not in str(problem)


@pytest.mark.parametrize("section", ["run", "model", "data", "stages"])
def test_a_section_that_is_missing_is_asked_for(section: str) -> None:
    content = {key: value for key, value in FULL.items() if key != section}
    problem = problems_of(content)[0]
    assert problem.path == section
    assert problem.way_out == f"add `{section}:` to the config"


# ---------------------------------------------------------------- all at once


MANY = """
run: {name: many, dir: runs/many, sead: 3}
model: {path: owner/model, dtype: float16}
data:
  sources:
    - {name: same, path: owner/data, format: instruction, task: {colum: category}}
    - {name: same, path: owner/other, format: message}
  max_len_tokens: 4096
stages:
  - {name: broad, mixture: {replay: {later: 0.5}}, budget: {}, optimizer: {lr: 1.0e-4}}
  - {name: broad, mixture: {temperature: 2}, budget: {steps: 1, epochs: 1}, optimizer: {lr: 1.0e-4, warmup_rato: 0.1}}
train: {packs_per_step: 0, pack_len_tokens: 1024}
checkpont: {keep_last: 1}
"""


def test_everything_that_is_wrong_is_in_one_message(tmp_path: Path) -> None:
    path = tmp_path / "many.yaml"
    path.write_text(MANY)
    with pytest.raises(ConfigError) as caught:
        build_config(read_yaml(path).content, str(path))
    expected = {
        "checkpont": "did you mean `checkpoint`?",
        "run.sead": "did you mean `seed`?",
        "model.dtype": "did you mean `bfloat16`?",
        "data.sources.0.task.colum": "did you mean `column`?",
        "data.sources.1.format": "did you mean `messages`?",
        "stages.1.optimizer.warmup_rato": "did you mean `warmup_ratio`?",
        "train.packs_per_step": "correct the value",
        "stages.1.name": "give it a name of its own",
        "stages.0.budget": "name one, such as {epochs: 1}",
        "stages.1.budget": "name one, such as {epochs: 1}",
        "stages.1.mixture.temperature": "set rates to temperature, or remove it",
        "stages.0.mixture.replay.later": "the first stage has none: remove it",
        "data.sources.1.name": "give it a name of its own",
        "train.pack_len_tokens": "make packs longer or max_len_tokens smaller",
    }
    found = {problem.path: problem.way_out for problem in caught.value.problems}
    assert found == expected
    lines = str(caught.value).splitlines()
    assert lines[0] == f"{path}: {len(expected)} problems"
    assert len(lines) == 1 + 3 * len(expected)
    assert lines[lines.index("  model.dtype: 'float16'") + 1 :][:2] == [
        "      must be bfloat16 or float32",
        "      → did you mean `bfloat16`?",
    ]


def test_each_problem_names_the_line_of_its_field(tmp_path: Path) -> None:
    path = tmp_path / "many.yaml"
    path.write_text(MANY + "cluster:\n  workers: [3, 2]\n  wrokers: 1\n")
    with pytest.raises(ConfigError) as caught:
        load_job(path, ["stages.1.budget.steps=2", "train.packs_per_step=-1", "evaluate={every_steps: no}"])
    lines = str(caught.value).splitlines()
    heads = [line.strip() for line in lines[1::3]]
    told = {
        head.partition(": ")[2].partition(":")[0]: int(head[5:].partition(":")[0])
        for head in heads
        if head[:5] == "line "
    }
    assert told == {
        "run.sead": 2,
        "model.dtype": 3,
        "data.sources.0.task.colum": 6,
        "data.sources.1.name": 7,
        "data.sources.1.format": 7,
        "stages.0.mixture.replay.later": 10,
        "stages.0.budget": 10,
        "stages.1.name": 11,
        "stages.1.mixture.temperature": 11,
        "stages.1.optimizer.warmup_rato": 11,
        "stages.1.budget": 11,
        "train.pack_len_tokens": 12,
        "checkpont": 13,
        "cluster.workers": 15,
        "cluster.wrokers": 16,
    }
    assert {head.partition(":")[0] for head in heads if head[:5] != "line "} == {
        "train.packs_per_step",
        "evaluate.every_steps",
    }


def test_what_is_missing_is_asked_for_at_its_section(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("run:\n  name: a\nmodel: {path: m}\nstages:\n  - name: one\n    budget: {steps: 1}\n")
    with pytest.raises(ConfigError) as caught:
        load_job(path)
    heads = str(caught.value).splitlines()[1::3]
    assert heads == ["  line 1: run.dir: nothing", "  data: nothing", "  line 5: stages.0.optimizer: nothing"]


def test_rules_between_sections_are_checked_beside_a_misspelt_key() -> None:
    content = override(
        LEAST, ["data.max_len_tokens=4096", "data.trian_on=last_assistant", "train.packs_per_microbatch=1"]
    )
    assert {p.path for p in problems_of(content)} == {
        "data.trian_on",
        "train.packs_per_microbatch",
        "train.pack_len_tokens",
    }


@pytest.mark.parametrize(
    "assignments",
    [
        ["stages.0={name: only, budget: {epochs: 1}, optimiser: {lr: 1}}"],
        ["stages.0.optimizer={lrr: 1}"],
        ["data={source: [{name: only, path: owner/data, format: messages}]}"],
        ["stages.0.budget={epoch: 1}"],
        ["stages.0.budget={epochs: one}"],
        ["stages.0.mixture={rates: tempurature, temperature: 2}"],
        ["stages.0.mixture={rates: temperature, temperatur: 2}"],
        ["data.max_len_tokens=4096", "train.pack_len_tokens=4O96"],
        ["data.max_len_tokens=4096", "train.pack_len=4096"],
        ["data.max_len_tokens=51Z", "train.pack_len_tokens=512"],
        ["data.max_len_token=512", "train.pack_len_tokens=512"],
        ["data.max_len_tokens=4096", "stages.0.pack_len_token=4096"],
    ],
)
def test_one_mistake_is_not_reported_a_second_time_as_a_broken_rule(assignments: list[str]) -> None:
    only_problem(LEAST, *assignments)


def test_a_long_value_is_shortened() -> None:
    message = str(ConfigError("f", [Problem("a.b", "x" * 5000, "rule", "way out")]))
    assert len(message) < 200
    assert "xxx...\n" in message
    assert "1 problem\n" in message


# ---------------------------------------------------------------- rules between fields

# Rule → assignments that break it and no other, the paths it names, and words of its way out.
BROKEN: dict[str, list[tuple[list[str], list[str], str]]] = {
    "stage_names_are_unique": [(["stages.2.name=narrow"], ["stages.2.name"], "a name of its own")],
    "source_names_are_unique": [
        (["data.sources.1.name=first", "data.holdout.sources=[]"], ["data.sources.1.name"], "a name of its own")
    ],
    "models_are_no_urls": [
        (["model.path='s3://key:secret@bucket/model'", "from="], ["model.path"], "its id on the Hub"),
        (["model.tokenizer='https://host/model'"], ["model.tokenizer"], "its id on the Hub"),
    ],
    "folders_are_no_urls": [
        (["run.dir=s3://key:secret@bucket/run"], ["run.dir"], "only `checkpoint.dir` may be a URL"),
        (["data.cache_dir=file:///cache"], ["data.cache_dir"], "name a folder"),
    ],
    "one_budget": [
        (["stages.2.budget={}"], ["stages.2.budget"], "epochs: 1"),
        (["stages.2.budget={steps: 1, epochs: 1}"], ["stages.2.budget"], "epochs: 1"),
    ],
    "rates_have_their_numbers": [
        (["stages.2.mixture={rates: temperature}"], ["stages.2.mixture.temperature"], "give stages.2"),
        (["stages.2.mixture={rates: weights}"], ["stages.2.mixture.weights"], "give stages.2"),
        (["stages.2.mixture={temperature: 2}"], ["stages.2.mixture.temperature"], "set rates to temperature"),
        (["stages.2.mixture={rates: equal, weights: {a: 1}}"], ["stages.2.mixture.weights"], "set rates to weights"),
        (["stages.1.mixture.tasks=[code]"], ["stages.1.mixture.tasks"], "remove `tasks`"),
    ],
    "settings_are_of_the_optimizer": [
        (["stages.0.optimizer.name=lion"], ["stages.0.optimizer.eps"], "remove it"),
        (["stages.1.optimizer.eps=null"], ["stages.1.optimizer.eps"], "it has a default"),
    ],
    "replay_is_of_earlier_stages": [
        (["stages.0.mixture.replay={narrow: 0.1}", "from="], ["stages.0.mixture.replay.narrow"], "remove it"),
        (["stages.2.mixture.replay={last: 0.1}"], ["stages.2.mixture.replay.last"], "name one of early, broad, narrow"),
        (["stages.2.mixture.replay={broad: 0.6, narrow: 0.4}"], ["stages.2.mixture.replay"], "smaller"),
    ],
    "examples_fit_a_pack": [
        (["stages.0.pack_len_tokens=511"], ["stages.0.pack_len_tokens"], "make packs longer"),
        (["train.pack_len_tokens=511"], ["train.pack_len_tokens"], "make packs longer"),
    ],
    "held_out_tasks_are_not_trained": [
        (["stages.0.mixture.tasks=[held, chat]"], ["stages.0.mixture.tasks"], "one of the two"),
        (["stages.1.mixture.weights.held=1"], ["stages.1.mixture.weights"], "one of the two"),
    ],
    "held_out_sources_are_known": [
        (["data.holdout.sources=[third]"], ["data.holdout.sources"], "name one of first, second"),
        (["data.holdout.sources=[first, second]"], ["data.holdout.sources"], "remove one"),
    ],
    "a_task_is_in_one_cluster": [(["data.clusters.more=[code]"], ["data.clusters.more"], "remove it from one")],
    "task_tag_names_the_task": [(["data.task_tag.text=Task"], ["data.task_tag.text"], "{task}")],
    "csv_characters_are_two": [
        (["data.sources.0.csv={delimiter: ab}"], ["data.sources.0.csv.delimiter"], "write one"),
        (['data.sources.0.csv={quote: "\\n"}'], ["data.sources.0.csv.quote"], "write one"),
        (["data.sources.0.csv={delimiter: ',', quote: ','}"], ["data.sources.0.csv.quote"], "two different characters"),
    ],
    "only_constructed_sources_are_approved": [
        (["data.sources.0.constructed=false"], ["data.sources.0.approve"], "set constructed: true, or remove it"),
    ],
    "urls_hold_no_variables": [
        (
            ["data.sources.1.path=s3://$B/x.jsonl"],
            ["data.sources.1.path"],
            "where the shell expands it: data.sources.1",
        ),
        (["checkpoint.dir=s3://${B}/x"], ["checkpoint.dir"], "write it out"),
    ],
    "homes_are_known": [
        (["run.dir=~nobody-of-here/run"], ["run.dir"], "set HOME"),
        (
            ["model.path=~nobody-of-here", "from=", "checkpoint.dir=~nobody-of-here/x"],
            ["model.path", "checkpoint.dir"],
            "set",
        ),
    ],
    "staging_dir_is_absolute": [(["data.staging_dir=scratch"], ["data.staging_dir"], "begin it with /")],
    "start_is_the_model": [(["from.model=other/model"], ["model.path"], "remove one of the two")],
    "extra_settings_change_no_number": [
        (["deepspeed.extra.zero_optimization.stage=2"], ["deepspeed.extra.zero_optimization.stage"], "remove it"),
    ],
    "scores_are_known": [
        (["evaluate.tasks.maths.score=numbr"], ["evaluate.tasks.maths.score"], "Scores are exact_match, "),
        (["evaluate.tasks.maths.score={name: regex}"], ["evaluate.tasks.maths.score"], "docs/SCORES.md"),
        (["evaluate.tasks.maths.score={digits: 3}"], ["evaluate.tasks.maths.score"], "docs/SCORES.md"),
    ],
    "the_best_is_one_of_several": [(["evaluate.every_steps=null"], ["checkpoint.best"], "give evaluate.every_steps")],
    "what_is_retained_is_named": [
        (["evaluate.retain.sources=[third]"], ["evaluate.retain.sources"], "name one of first, second"),
        (["evaluate.retain={max_drop: 0.1}"], ["evaluate.retain"], "tasks: [maths]"),
        (
            ["evaluate.retain={tasks: [maths]}", "evaluate.before_training=false"],
            ["evaluate.before_training"],
            "leave it true",
        ),
    ],
    "one_warmup": [
        (["stages.1.optimizer.warmup_ratio=0.1"], ["stages.1.optimizer.warmup_ratio"], "remove one of the two"),
        (["stages.1.optimizer.warmup_steps=10"], ["stages.1.optimizer.warmup_steps"], "warm up for fewer"),
    ],
    "epochs_are_those_of_the_budget": [
        (["checkpoint.every_epochs=0.5"], ["checkpoint.every_epochs"], "give checkpoint.every_steps instead"),
        (["evaluate.every_epochs=1"], ["evaluate.every_epochs"], "give evaluate.every_steps instead"),
    ],
    "the_plain_engine_offloads_nothing": [
        (
            ["train.engine=plain", "deepspeed.offload_optimizer=cpu", "deepspeed.offload_parameters=none"],
            ["train.engine"],
            "set auto, or remove the offload",
        )
    ],
    "shared_rows_are_packed": [
        (["train.sequence_parallel=2"], ["train.sequence_parallel"], "set train.packing to packed"),
        (
            [
                *("train.sequence_parallel=2", "train.packing=packed", "train.packs_per_micro_batch=1"),
                "model.dropout=as_configured",
            ],
            ["train.sequence_parallel"],
            "set model.dropout to none",
        ),
    ],
    "dropout_is_of_one_pack": [(["model.dropout=as_configured"], ["train.packs_per_micro_batch"], "set it to 1")],
}


def test_every_rule_is_tested() -> None:
    assert set(BROKEN) == {rule.__name__ for rule, _ in RULES}


@pytest.mark.parametrize(
    ("name", "assignments", "paths", "way_out"),
    [(name, *case) for name, cases in BROKEN.items() for case in cases],
)
def test_a_rule_is_broken_alone(name: str, assignments: list[str], paths: list[str], way_out: str) -> None:
    problems = problems_of(override(FULL, assignments))
    assert [problem.path for problem in problems] == paths
    assert all(way_out in problem.way_out for problem in problems)
    fields = {field.alias or name: field for name, field in SftConfig.model_fields.items()}
    sections: dict[str, Any] = {"from": None}
    sections |= {
        key: TypeAdapter(fields[key].annotation).validate_python(part)
        for key, part in override(FULL, assignments).items()
    }
    breaking = {rule.__name__ for rule, needed in RULES if list(rule(*(sections[key] for key in needed)))}
    assert breaking == {name}


# ---------------------------------------------------------------- overrides


@pytest.mark.parametrize(
    ("assignment", "place", "value"),
    [
        ("train.packs_per_micro_batch=4", ("train", "packs_per_micro_batch"), 4),
        ("stages.1.budget.steps=7", ("stages", 1, "budget", "steps"), 7),
        ("stages.narrow.budget.steps=7", ("stages", 1, "budget", "steps"), 7),
        ("data.sources.second.path=a=b", ("data", "sources", 1, "path"), "a=b"),
        ("data.sources.0.task=chat", ("data", "sources", 0, "task"), "chat"),
        ("data.holdout.tasks.0=other", ("data", "holdout", "tasks", 0), "other"),
        ("stages.last.mixture.rates=equal", ("stages", 2, "mixture", "rates"), "equal"),
        ("stages.narrow.mixture.weights={code: 1}", ("stages", 1, "mixture", "weights"), {"code": 1}),
        ("checkpoint.every_steps=null", ("checkpoint", "every_steps"), None),
        ("checkpoint.every_steps=", ("checkpoint", "every_steps"), None),
    ],
)
def test_an_override_changes_its_place_and_nothing_else(assignment: str, place: tuple[Any, ...], value: Any) -> None:
    before = deepcopy(FULL)
    changed = override(FULL, [assignment])
    assert before == FULL
    assert at(changed, place) == value
    build_config(changed)
    expected = deepcopy(FULL)
    parent = expected
    for key in place[:-1]:
        parent = parent.setdefault(key, {}) if isinstance(parent, dict) else parent[key]
    parent[place[-1]] = value
    assert changed == expected


def test_a_later_override_wins_and_sees_what_an_earlier_one_made() -> None:
    assignments = [
        "train.packs_per_micro_batch=4",
        "train.packs_per_micro_batch=5",
        "stages.2.name=end",
        "stages.end.budget.epochs=1",
    ]
    changed = override(FULL, assignments)
    assert changed["train"]["packs_per_micro_batch"] == 5
    assert changed["stages"][2]["budget"]["epochs"] == 1


def test_an_override_fills_a_section_that_is_empty_or_absent() -> None:
    assert override({"train": None}, ["train.packs_per_step=2"]) == {"train": {"packs_per_step": 2}}
    assert override({}, ["data.holdout.share=0"]) == {"data": {"holdout": {"share": 0}}}


def test_a_name_comes_before_a_number() -> None:
    items = {"stages": [{"name": "1"}, {"name": "0"}]}
    assert override(items, ["stages.0.x=1"])["stages"] == [{"name": "1"}, {"name": "0", "x": 1}]


def test_an_override_of_an_anchor_leaves_its_aliases(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("a: &shared {lr: 1}\nb: *shared\nc: {<<: *shared, eps: 2}\n")
    changed = override(read_yaml(path).content, ["a.lr=5"])
    assert changed == {"a": {"lr": 5}, "b": {"lr": 1}, "c": {"lr": 1, "eps": 2}}


@pytest.mark.parametrize(
    ("assignment", "words"),
    [
        ("train.packs_per_step", "an override is section.field=value"),
        ("=4", "an override is section.field=value"),
        ("--verbose", "an override is section.field=value"),
        ("stages.brod.name=x", "there is no 'brod'; give a number below 3, or one of: broad, narrow, last"),
        ("stages.3.name=x", "there is no '3'"),
        ("stages.-1.name=x", "there is no '-1'"),
        ("stages.².name=x", "there is no '²'"),
        ("data.holdout.tasks.5=x", "there is no '5'"),
        ("run.name.first=x", "'full' is a value, not a section, so it has no 'first'"),
        ("run.name.first.second=x", "'full' is a value, not a section, so it has no 'first'"),
        ("train.packs_per_step=[1", "the value is not YAML"),
        ("run.name=2024-13-45", "the value is not YAML: month must be in 1..12"),
        ("run.name==", "the value is not YAML"),
        ("train={packs_per_step: 1, packs_per_step: 2}", "'packs_per_step' is there twice"),
        ("run.seed=010", "010 is 8 in YAML 1.1 and 10 in YAML 1.2: write the number without a leading 0"),
        ("stages.1.mixture.weights={true: 1}", 'YAML reads the key true as true or false: write "true", in quotes'),
        ("stages.1.mixture.weights={2024: 1}", 'YAML reads the key 2024 as a number: write "2024", in quotes'),
        ("data.sources.0.path=my data #2.jsonl", "for YAML, everything after the # is a comment"),
        ("data.sources.0.path=#2.jsonl", "for YAML, everything after the # is a comment"),
    ],
)
def test_a_wrong_override_says_what_is_wrong(assignment: str, words: str) -> None:
    with pytest.raises(UserError, match=".*") as caught:
        override(FULL, [assignment])
    assert words in str(caught.value)
    assert repr(assignment) in str(caught.value), "it is quoted with its path"


@pytest.mark.parametrize(
    ("assignment", "path"),
    [
        ("stages.narrow.optimizer.lr=fast", "stages.1.optimizer.lr"),
        ("stages.narrow.optimizer={lr: fast}", "stages.1.optimizer.lr"),
        ("trian.packs_per_step=2", "trian"),
        ("data.max_len_tokens=999999", "train.pack_len_tokens"),
    ],
)
def test_a_problem_of_an_override_quotes_it(assignment: str, path: str) -> None:
    content, assigned = read_overrides(FULL, ["run.seed=4", assignment])
    rules = {p.path: p.rule for p in quote_overrides(problems_of(content), assigned)}
    is_of_it = not path.startswith("train.")  # a rule of two fields is about the one that it names
    assert rules[path].endswith(f", in {assignment!r}") == is_of_it


# ---------------------------------------------------------------- former names

FORMER = {
    "train.packs_per_micro_batch": "micro_packs",
    "data.holdout.decontaminate": "overlap",
    "data.holdout.ngram_tokens": "overlap_len_tokens",
}


def write_full(path: Path, changes: dict[str, Any]) -> Path:
    content = override(FULL, ["from=", "cluster={workers: 2, gpus_per_worker: 1}"])
    for place, value in changes.items():
        *parents, key = place.split(".")
        at(content, tuple(parents))[key] = value
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.mark.parametrize("place", FORMER)
def test_a_former_name_is_read_in_a_file_and_an_override_with_a_note_that_names_the_new_one(
    place: str, tmp_path: Path
) -> None:
    section, _, name = place.rpartition(".")
    former, value = f"{section}.{FORMER[place]}", at(FULL, tuple(place.split(".")))
    known = write_full(tmp_path / "now.yaml", {})
    text = known.read_text()
    assert f" {name}:" in text
    (tmp_path / "then.yaml").write_text(text.replace(f" {name}:", f" {FORMER[place]}:"))
    now, then = load_job(known), load_job(tmp_path / "then.yaml")
    assert (then.sft, then.lines) == (now.sft, now.lines)
    assert now.notes == ()
    assert then.notes == (f"{former} is called `{name}` now; the old name is still read",)
    record = dump_config(now.sft).replace(f" {name}:", f" {FORMER[place]}:")
    assert build_config(yaml.safe_load(record)) == now.sft
    given = load_job(known, [f"{former}={value}"])
    assert (given.sft, given.notes) == (now.sft, then.notes)
    whole = load_job(known, [f"{section}={{{FORMER[place]}: {value}}}"])
    assert at(whole.sft.model_dump(), tuple(place.split("."))) == value
    assert whole.notes == then.notes
    with pytest.raises(ConfigError, match=f"{place}: ") as caught:
        load_job(tmp_path / "then.yaml", [f"{former}=-1"])
    assert f"in '{former}=-1'" in str(caught.value)


def test_an_override_by_a_former_name_wins_and_both_in_one_file_are_refused(tmp_path: Path) -> None:
    assert load_job(write_full(tmp_path / "a.yaml", {}), ["train.micro_packs=7"]).sft.train.packs_per_micro_batch == 7
    both = write_full(tmp_path / "b.yaml", {"train.micro_packs": 7})
    with pytest.raises(ConfigError, match=r"train.micro_packs: 7\n.*is the former name of `packs_per_micro_batch`"):
        load_job(both)


# ---------------------------------------------------------------- files


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"a: [1", "this is not YAML"),
        (b"a: b: c", "line 1: this is not YAML: mapping values are not allowed here"),
        (b"\tb: c", "this is not YAML"),
        (b"a: 2024-13-45", "this is not YAML: month must be in 1..12"),
        (b"a: !!python/object/apply:os.getcwd []", "this is not YAML"),
        (b"train: {}\nrun: {}\ntrain: {}", "line 3: 'train' is there twice"),
        (b"run: {seed: 1, seed: 2}", "'seed' is there twice"),
        (b"a: &a [*a]", "this is not YAML"),
        (b"run: {seed: 0017}", "0017 is 15 in YAML 1.1 and 17 in YAML 1.2"),
        (b"run: {seed: 08}", "08 is a text in YAML 1.1 and 8 in YAML 1.2"),
        (b"a:\n  true: 1", 'line 2: YAML reads the key true as true or false: write "true", in quotes'),
        (b"? [1, 2]\n: 1", "line 1: a key must be a text, not a list or a mapping"),
        (b"a:\n  2024-01-31: 1", "YAML reads the key 2024-01-31 as a date"),
        (b"a:\n  ~: 1", "YAML reads the key ~ as nothing"),
        (
            b"path: my data #2.jsonl\nb: 1",
            "c.yaml: line 1: for YAML, everything after the # is a comment: put the whole value in quotes",
        ),
        (b"a: [{path: #2.jsonl\n}]", "for YAML, everything after the # is a comment"),
        (b"dir:  #2\nb: 1", "for YAML, everything after the # is a comment"),
        (b"[" * 600, "this is not YAML"),
        (b"", "must be a mapping of sections, but it is None"),
        (b"# nothing", "must be a mapping of sections, but it is None"),
        (b"- run", "must be a mapping of sections, but it is ['run']"),
        (b"run", "must be a mapping of sections, but it is 'run'"),
        (b"a: \xff", "cannot be read"),
    ],
)
def test_a_file_that_is_no_config_is_refused(tmp_path: Path, text: bytes, words: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_bytes(text)
    with pytest.raises(UserError, match=".*") as caught:
        read_yaml(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert words in str(caught.value)


@settings(deadline=None)
@given(
    st.text(max_size=9)
    | st.text("0123456789.eEoxbn_+-:~", max_size=9)
    | st.from_regex(r"[0-9]e[0-9]|0o?[0-9]+|[yY]es|off", fullmatch=True)
)
def test_a_written_text_is_read_by_every_version_of_yaml(text: str) -> None:
    written = write_yaml({"a": text, "b": [text]})
    assert parse_yaml(written, "").content == yaml.safe_load(written) == {"a": text, "b": [text]}


def test_numbers_and_words_are_those_of_yaml_1_2(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("a: 1e-5\nb: 5E8\nc: 0o17\nd: no\ne: on\nf: 1_000\nno: y\ng: .5\n")
    expected = {"a": 1e-5, "b": 5e8, "c": 15, "d": "no", "e": "on", "f": 1000, "no": "y", "g": 0.5}
    assert read_yaml(path).content == expected


def test_what_is_meant_as_text_is_text(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    lines = [
        "path: data/#1/x#y.jsonl # of May",
        "b: 12:30",
        "c: 190:20:30.5",
        '"no": "010"',
        "dir: 'a #1'",
        "text: a # b",
    ]
    path.write_text("\n".join(lines))
    expected = {"path": "data/#1/x#y.jsonl", "b": "12:30", "c": "190:20:30.5", "no": "010", "dir": "a #1", "text": "a"}
    assert read_yaml(path).content == expected
    assert override({"a": ""}, ["a='x #1'"]) == {"a": "x #1"}
    assert override({"a": ""}, ["a=x#1"]) == {"a": "x#1"}


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.yaml: the config cannot be read: No such file or directory"):
        read_yaml(tmp_path / "none.yaml")
    with pytest.raises(UserError, match="the config cannot be read: this is a folder"):
        read_yaml(tmp_path)


@settings(deadline=None)
@given(st.text(st.sampled_from("ab:-[]{},&*!<>|#'\"\n 01.=~?%"), max_size=30))
def test_any_text_is_a_mapping_or_a_user_error(text: str) -> None:
    try:
        changed = override({"a": 1}, [f"b={text}"])
    except UserError:
        return
    assert changed["a"] == 1


def test_the_name_of_a_task_may_have_spaces_wherever_it_is_given() -> None:
    named = ["data.sources.0.task=word problems", "stages.1.mixture.weights.word problems=2"]
    config = build_config(override(FULL, [*named, "data.holdout.tasks=[old jokes]"]))
    assert config.data.sources[0].task == "word problems"
    assert config.stages[1].mixture.weights["word problems"] == 2
    assert config.data.holdout.tasks == ("old jokes",)
