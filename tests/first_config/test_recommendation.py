"""What is recommended fits the machine, where that is known, and follows the sizes of data and model."""

from typing import Any

import pytest

from sft.config import SftConfig, SourceConfig
from sft.config_file import build_config
from sft.first_config.commented import without_comments
from sft.first_config.model_survey import ModelFacts
from sft.first_config.recommendation import Machine, Wanted, recommend
from sft.first_config.source_survey import Survey
from sft.sizing.fit import GIB, Job
from sft.sizing.gpus import GPUS, GpuKind
from sft.sizing.model_shape import model_shape
from tests.sizing.models import LLAMA_8B

LARGE = {
    **LLAMA_8B,
    "hidden_size": 8192,
    "num_hidden_layers": 80,
    "num_attention_heads": 64,
    "intermediate_size": 28672,
}


def survey_of(num_records: int, lengths: tuple[int, ...], tasks: dict[str, int] | None = None) -> Survey:
    source = SourceConfig(name="s", path="s.jsonl", format="messages")
    columns = {"kind": tasks} if tasks else {}
    return Survey(source, len(lengths) or 100, num_records, (), lengths, ("messages", "kind"), columns)


def facts_of(content: dict[str, Any] | None) -> ModelFacts:
    return ModelFacts("m", "llama", 8192 if content else None, model_shape(content) if content else None, ())


def recommended(survey: Survey, facts: ModelFacts, machine: Machine, task: str | None = None) -> tuple[SftConfig, Any]:
    content = recommend(Wanted("r", "m", None, {"s": task}), [survey], facts, machine)
    machines = ("cluster", "slurm")
    sections = {name: section for name, section in without_comments(content).items() if name not in machines}
    return build_config(sections), content


@pytest.mark.parametrize("kind", GPUS)
@pytest.mark.parametrize("num_gpus", [1, 8])
def test_what_is_recommended_fits_or_says_that_it_does_not(kind: GpuKind, num_gpus: int) -> None:
    facts = facts_of(LLAMA_8B)
    config, content = recommended(survey_of(50_000, (100, 300, 900)), facts, Machine(num_gpus, kind))
    assert facts.shape is not None
    fits = Job(config, facts.shape, 0, num_gpus).num_bytes <= GPUS[kind].memory_gib * GIB
    assert fits != ("DOES NOT FIT" in content["train"]["packs_per_micro_batch"].comment)
    assert config.train.packs_per_step % num_gpus == 0


def test_a_large_model_learns_slower_and_answers_nothing_on_one_gpu() -> None:
    survey = survey_of(50_000, (100, 300, 900))
    small, _ = recommended(survey, facts_of(LLAMA_8B), Machine(8, "h100-80gb"))
    large, _ = recommended(survey, facts_of(LARGE), Machine(64, "h100-80gb"))
    assert large.stages[0].optimizer.lr < small.stages[0].optimizer.lr
    assert (small.evaluate.sample_answers, large.evaluate.sample_answers) == (4, 0)
    assert (small.evaluate.answers_per_task, large.evaluate.answers_per_task) == (20, 0)


def test_answers_are_asked_for_where_they_are_cheap_with_what_they_cost() -> None:
    """Half of an epoch between two evaluations, a fiftieth held out, and 128 tokens for each answer."""
    tasks = {"rare": 5, "usual": 45}
    survey, facts = survey_of(6000, (100,) * 50, tasks), facts_of(LLAMA_8B)
    config, content = recommended(survey, facts, Machine(1, "h100-80gb"), "kind")
    assert config.stages[0].budget.epochs == 3
    comment = content["evaluate"]["answers_per_task"].comment
    assert f"{20 * 2 * config.evaluate.max_new_tokens:,} tokens" in comment
    assert "at each of 7 evaluations" in comment
    few, told = recommended(survey_of(600, (100,) * 50), facts, Machine(1, "h100-80gb"))
    assert f"{20 * few.evaluate.max_new_tokens:,} tokens" in told["evaluate"]["answers_per_task"].comment
    for other in (Machine(0), Machine(1, "rtx4090"), Machine(1)):
        assert recommended(survey, facts, other)[0].evaluate.answers_per_task == 0
    content = recommend(Wanted("r", "m", None, {"s": None}, has_scores=False), [survey], facts, Machine(1, "h100-80gb"))
    assert "answers_per_task" not in content["evaluate"]


@pytest.mark.parametrize(("longest", "most"), [(40, 256), (700, 1024), (9000, 8192)])
def test_examples_may_be_as_long_as_they_are_and_no_longer_than_the_model_was_made_for(longest: int, most: int) -> None:
    config, _ = recommended(survey_of(1000, (10, longest)), facts_of(LLAMA_8B), Machine(1))
    assert config.data.max_len_tokens == most
    assert config.train.pack_len_tokens >= most


@pytest.mark.parametrize(("num_gpus", "per_node"), [(0, None), (1, None), (8, 8), (12, 4), (16, 8)])
def test_gpus_are_in_one_node_as_long_as_it_has_room(num_gpus: int, per_node: int | None) -> None:
    _, content = recommended(survey_of(1000, (100,)), facts_of(LLAMA_8B), Machine(num_gpus))
    assert without_comments(content).get("slurm", {}).get("workers_per_node") == per_node


@pytest.mark.parametrize(("num_gpus", "dtype"), [(0, "float32"), (1, "bfloat16")])
def test_cpus_compute_in_what_every_one_of_them_is_fast_in(num_gpus: int, dtype: str) -> None:
    config, _ = recommended(survey_of(1000, (100,)), facts_of(LLAMA_8B), Machine(num_gpus))
    assert config.model.dtype == dtype


def test_little_data_still_makes_many_updates() -> None:
    survey = survey_of(2000, (100,) * 50)
    config, _ = recommended(survey, facts_of(LLAMA_8B), Machine(1))
    epochs = config.stages[0].budget.epochs
    assert epochs is not None
    updates = 2000 * 100 * epochs / (config.train.packs_per_step * config.train.pack_len_tokens)
    assert updates >= 90


def test_small_tasks_count_for_more_beside_a_much_larger_one() -> None:
    for tasks, rates in (({"a": 60, "b": 40}, "natural"), ({"a": 99, "b": 1}, "temperature")):
        config, _ = recommended(survey_of(1000, (9,) * 100, tasks), facts_of(None), Machine(0), "kind")
        assert config.stages[0].mixture.rates == rates
