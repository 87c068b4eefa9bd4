"""The arms of the learning experiments: valid configs of equal tokens, over data in the forms that they need."""

import collections
from pathlib import Path

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from benchmarks.learning.arms import NUM_CLUSTERS, NUM_TOKENS, SEEDS, Arm, arms, write_arms
from benchmarks.learning.data import DATA, learned_whole, new_prompts, shown, with_id
from benchmarks.learning.model import write_tokenizer
from benchmarks.learning.zoo.records import Zoo, make_zoo
from benchmarks.learning.zoo.tasks import CLUSTERS, TASKS
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
    seeds = collections.defaultdict(set)
    for arm in all_arms:
        name = arm.name.split("-without-")[0]
        assert arm.seed not in seeds[arm.experiment, name]
        seeds[arm.experiment, name].add(arm.seed)
        assert sum(stage["budget"]["tokens"] for stage in arm.config["stages"]) == NUM_TOKENS
    assert min(map(len, seeds.values())) >= len(SEEDS) >= 3
    assert {experiment for experiment, _ in seeds} == {"clusters", "balance", "stages", "words", "packing"}
    folders = [arm.config["run"]["dir"] for arm in all_arms]
    assert len(set(folders)) == len(folders)


def test_every_cluster_is_held_out_once_and_more_clusters_hold_the_fewer(all_arms: list[Arm]) -> None:
    folds = collections.defaultdict(dict)
    for arm in all_arms:
        if arm.experiment == "clusters":
            unseen = {TASKS[name].cluster for name in arm.config["data"]["holdout"]["tasks"]}
            folds[arm.name.split("-without-")[1]][int(arm.name[:2])] = set(CLUSTERS) - unseen
    assert set(folds) == set(CLUSTERS)
    for held_out, trained in folds.items():
        assert tuple(sorted(trained)) == NUM_CLUSTERS
        assert all(len(clusters) == number for number, clusters in trained.items())
        assert set(CLUSTERS) - trained[11] == {held_out}
        assert trained[2] < trained[4] < trained[8] < trained[11]


def test_the_configs_are_valid(all_arms: list[Arm], tmp_path: Path) -> None:
    paths = write_arms(tmp_path, tmp_path / "base", SEEDS[:1])
    assert all(path.is_file() for path in paths)
    for arm in {(arm.experiment, arm.name.split("-without-")[0]): arm for arm in all_arms}.values():
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
