"""The arms of the learning experiments: valid configs of equal tokens, over data in the forms that they need."""

import collections
from pathlib import Path

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from benchmarks.learning.arms import NUM_CLUSTERS, Arm, arms, write_arms
from benchmarks.learning.data import DATA, learned_whole, new_prompts, rare_and_frequent, shown, with_id
from benchmarks.learning.experiments import AFTER, BASE, EXPERIMENTS, WITHOUT
from benchmarks.learning.model import write_tokenizer
from benchmarks.learning.real import REAL, real_arms
from benchmarks.learning.scale import FULL, SMALL
from benchmarks.learning.zoo.records import Zoo, make_zoo
from benchmarks.learning.zoo.tasks import CLUSTERS, TASKS, sizes
from sft.config_file import build_config


@pytest.fixture(scope="module")
def all_arms() -> list[Arm]:
    return arms(Path("folder"), Path("base"))


@pytest.fixture(scope="module")
def zoo() -> Zoo:
    return make_zoo(largest=100, ratio=10, num_test=10)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(write_tokenizer(tmp_path_factory.mktemp("tokenizer")))


def test_every_arm_has_three_seeds_and_the_same_number_of_tokens(all_arms: list[Arm]) -> None:
    seeds = collections.defaultdict(list)
    for arm in all_arms:
        seeds[arm.experiment, arm.name].append(arm.seed)
        assert sum(stage["budget"]["tokens"] for stage in arm.config["stages"]) == FULL.num_tokens
    assert all(len(set(own)) == len(own) >= 3 for own in seeds.values())
    assert {experiment for experiment, _ in seeds} == {*EXPERIMENTS} - {REAL}


def test_what_is_compared_are_the_models_of_the_arms(all_arms: list[Arm]) -> None:
    every = [*all_arms, *real_arms(Path("folder"), Path("model"), Path("data"))]
    for name, experiment in EXPERIMENTS.items():
        models = {BASE, experiment.base_of}
        for arm in every:
            if arm.experiment == name:
                models |= {arm.name, *(f"{arm.name}{WITHOUT}" for _ in arm.also_asked)}
                models |= {f"{arm.name}{AFTER}{stage['name']}" for stage in arm.config["stages"][:-1]}
        assert set(experiment.models) == models
        assert {model for pair in experiment.pairs for model in pair} <= models


def test_arms_share_a_run_if_they_are_the_same_training(all_arms: list[Arm]) -> None:
    runs = collections.defaultdict(list)
    for arm in all_arms:
        runs[arm.config["run"]["dir"]].append(arm)
    for own in runs.values():
        assert all((arm.seed, arm.config) == (own[0].seed, own[0].config) for arm in own)
    shared = [{arm.experiment for arm in own} for own in runs.values() if len(own) > 1]
    assert shared == [{"balance", "words", "packing"}] * len(FULL.seeds)


def test_every_cluster_is_held_out_once_and_more_clusters_hold_the_fewer(all_arms: list[Arm]) -> None:
    folds = collections.defaultdict(dict)
    for arm in all_arms:
        if arm.experiment == "clusters":
            unseen = {TASKS[name].cluster for name in arm.config["data"]["holdout"]["tasks"]}
            assert set(arm.trained) == set(CLUSTERS) - unseen
            folds[arm.unseen][int(arm.name.partition("-")[0])] = set(arm.trained)
    assert set(folds) == {(name,) for name in CLUSTERS}
    for held_out, trained in folds.items():
        assert tuple(sorted(trained)) == NUM_CLUSTERS
        assert all(len(clusters) == number for number, clusters in trained.items())
        assert set(CLUSTERS) - trained[11] == {*held_out}
        assert trained[2] < trained[4] < trained[8] < trained[11]


def test_the_tasks_of_a_held_out_cluster_are_asked_and_not_trained(all_arms: list[Arm]) -> None:
    for arm in all_arms:
        asked = {name for name, own in arm.config["evaluate"]["tasks"].items() if own["max_answers"]}
        assert {TASKS[name].cluster for name in asked} == {*arm.trained, *arm.unseen}
        assert not set(arm.trained) & set(arm.unseen)
        for stage in arm.config["stages"]:
            trained = {*stage["mixture"].get("tasks", ()), *stage["mixture"].get("weights", ())}
            assert {TASKS[name].cluster for name in trained} <= set(arm.trained)
    held_out = {(arm.seed, arm.unseen) for arm in all_arms if arm.experiment == "words"}
    assert len({unseen for _, unseen in held_out}) == len(held_out) == len(FULL.seeds)


def test_rare_tasks_have_fewer_records_than_frequent_ones() -> None:
    rare, frequent = rare_and_frequent(FULL)
    counts = sizes(**FULL.zoos["natural"])
    assert len(rare) == len(frequent) == len(TASKS) // 3
    assert 2 * max(counts[name] for name in rare) < min(counts[name] for name in frequent)


def test_the_configs_are_valid(all_arms: list[Arm], tmp_path: Path) -> None:
    paths = write_arms(tmp_path, arms(tmp_path, tmp_path / "base", SMALL))
    assert paths
    assert all(path.is_file() for path in paths)
    for arm in {(arm.experiment, arm.name): arm for arm in all_arms}.values():
        config = build_config({key: value for key, value in arm.config.items() if key != "cluster"})
        for stage in config.stages:
            assert stage.budget.tokens


def test_numbers_stand_for_tasks_and_nothing_that_was_asked_is_lost(zoo: Zoo) -> None:
    for record in zoo.train:
        changed = with_id(record)
        assert list(TASKS)[int(changed["instruction"].removeprefix("task_id="))] == record["task"]
        assert changed["input"].endswith(record["input"])
        for part in changed["input"].removesuffix(record["input"]).split(" ; "):
            assert part in record["instruction"]
    add = next(record for record in zoo.train if record["task"] == "add")
    a, b = map(int, with_id(add)["input"].split(" ; "))
    assert a + b == int(add["output"])


def test_prompts_that_training_has_are_not_asked(zoo: Zoo) -> None:
    trained = [with_id(record) for record in zoo.train]
    asked = new_prompts(map(with_id, zoo.test), trained)
    known = {(record["instruction"], record["input"]) for record in trained}
    assert asked
    assert not [record for record in asked if (record["instruction"], record["input"]) in known]


def test_the_same_answers_are_learned_with_examples_and_with_the_prompt(
    zoo: Zoo, tokenizer: PreTrainedTokenizerBase
) -> None:
    answers = [record["output"] for record in zoo.train]
    conversations = shown(zoo.train, seed=1)
    assert [conversation["messages"][-1]["content"] for conversation in conversations] == answers
    assert len({len(conversation["messages"]) for conversation in conversations}) == 4
    rows = learned_whole(zoo.train[:50], tokenizer)
    for row, answer in zip(rows, answers, strict=False):
        assert row["labels"] == [-100, *row["input_ids"][1:]]
        assert answer in tokenizer.decode(row["input_ids"])
    assert set(rows[0]) == {"input_ids", "labels", "task"}
    assert set(DATA) == {"records", "shown", "ids", "everything"}
