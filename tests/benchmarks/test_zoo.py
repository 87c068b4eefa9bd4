"""The zoo's answers are right, its records are reproducible, and its tests ask nothing that training has shown."""

import collections
import itertools
import re

import numpy as np
import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from benchmarks.learning.base_text import documents, text_of
from benchmarks.learning.model import build_model, vocabulary, write_tokenizer
from benchmarks.learning.zoo.records import Zoo, by_task, make_zoo, shown_for, with_shots
from benchmarks.learning.zoo.task import Record
from benchmarks.learning.zoo.tasks import CLUSTERS, TASKS, sizes
from tests.benchmarks.zoo_answers import ANSWERS


@pytest.fixture(scope="module")
def zoo() -> Zoo:
    return make_zoo(seed=3, largest=1000, num_test=40)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(write_tokenizer(tmp_path_factory.mktemp("tokenizer")))


def everything(zoo: Zoo) -> list[Record]:
    return [*zoo.train, *zoo.test, *zoo.unseen_wordings]


def prompt_of(record: Record) -> tuple[str, str]:
    return record["instruction"], record["input"]


def test_every_answer_is_right(zoo: Zoo) -> None:
    assert set(ANSWERS) == set(TASKS)
    for record in everything(zoo):
        asked = record["instruction"][0].lower() + record["instruction"][1:]
        assert record["output"] == ANSWERS[record["task"]](asked, record["input"]), record


def test_there_are_twelve_clusters_of_several_tasks() -> None:
    assert len(CLUSTERS) == 12
    assert min(len(tasks) for tasks in CLUSTERS.values()) >= 4
    assert len(TASKS) == sum(len(tasks) for tasks in CLUSTERS.values()) >= 48
    assert {task.cluster for task in TASKS.values()} == set(CLUSTERS)


def test_the_same_seed_gives_the_same_records_and_another_one_others(zoo: Zoo) -> None:
    assert make_zoo(seed=3, largest=1000, num_test=40) == zoo
    assert make_zoo(seed=4, largest=1000, num_test=40).test != zoo.test


def test_sizes_follow_a_power_law_and_every_task_reaches_its_size(zoo: Zoo) -> None:
    wanted = sizes(1000, 100)
    assert collections.Counter(record["task"] for record in zoo.train) == wanted
    ranked = np.sort(list(wanted.values()))[::-1]
    assert ranked[0] / ranked[-1] == pytest.approx(100, rel=0.06)
    slope = np.polyfit(np.log(np.arange(1, len(ranked) + 1)), np.log(ranked), 1)[0]
    assert slope == pytest.approx(-np.log(100) / np.log(len(ranked)), rel=0.05)
    assert len({record["cluster"] for record in zoo.train if wanted[record["task"]] > 100}) >= 6
    assert len(set(sizes(40, 1).values())) == 1


def test_no_prompt_is_asked_twice_or_stands_on_two_sides(zoo: Zoo) -> None:
    prompts = [prompt_of(record) for record in everything(zoo)]
    assert len(set(prompts)) == len(prompts)
    assert min(collections.Counter(record["task"] for record in zoo.test).values()) >= 8


def test_wordings_tell_tasks_apart_and_unseen_ones_are_new() -> None:
    seen = {task.name: set(task.wordings) for task in TASKS.values()}
    unseen = {task.name: set(task.unseen_wordings) for task in TASKS.values()}
    for name, task in TASKS.items():
        assert len(seen[name]) == len(task.wordings) >= 6, name
        assert len(unseen[name]) == len(task.unseen_wordings) >= 2, name
    of_any = [_shape(wording) for name in TASKS for wording in seen[name] | unseen[name]]
    assert sorted(of_any) == sorted(set(of_any))


def _shape(wording: str) -> str:
    """A wording whose slots say only what fills them: two that differ in nothing else could not be told apart."""
    filled = {"word": "noun", "thing": "noun", "key": "noun", "a": "number", "b": "number", "least": "number"}
    return re.sub(r"\{(\w+)\}", lambda slot: f"<{filled.get(slot[1], slot[1])}>", wording.lower())


def test_records_use_the_wordings_of_their_side(zoo: Zoo) -> None:
    for record in (*zoo.train, *zoo.test):
        assert record["wording"] in TASKS[record["task"]].wordings
    for record in zoo.unseen_wordings:
        assert record["wording"] in TASKS[record["task"]].unseen_wordings
    assert not [record for record in everything(zoo) if re.search(r"[{}]", record["instruction"])]


def test_options_hold_every_answer_and_each_of_them_is_one(zoo: Zoo) -> None:
    for name, records in by_task(everything(zoo)).items():
        options = TASKS[name].options
        assert all(record.get("options", []) == list(options) for record in records)
        if options:
            shares = collections.Counter(record["output"] for record in records)
            assert set(shares) == set(options)
            assert max(shares.values()) < 2.2 * len(records) / len(options), name


def test_references_hold_the_answer(zoo: Zoo) -> None:
    several = [record for record in everything(zoo) if "references" in record]
    assert several
    assert all(record["output"] in record["references"] for record in several)


def test_tokens_cover_all_texts_and_answers_are_decoded_exactly(zoo: Zoo, tokenizer: PreTrainedTokenizerBase) -> None:
    texts = {text for record in everything(zoo) for text in (record["instruction"], record["input"], record["output"])}
    texts |= set(map(text_of, itertools.islice(documents(np.random.default_rng(0)), 1000)))
    texts |= {f"Task type: {name.replace('_', ' ')}" for name in TASKS} | {"task_id=3"}
    ids = tokenizer(sorted(texts))["input_ids"]
    assert not [text for text, tokens in zip(sorted(texts), ids, strict=True) if tokenizer.unk_token_id in tokens]
    answers = sorted({record["output"] for record in everything(zoo)})
    assert tokenizer.batch_decode(tokenizer(answers)["input_ids"]) == answers


def test_the_vocabulary_is_small_and_every_token_is_used() -> None:
    tokens = vocabulary()
    assert len(set(tokens)) == len(tokens) < 600


def test_a_model_is_the_same_for_a_seed() -> None:
    one, two, other = (dict(build_model(seed).named_parameters()) for seed in (1, 1, 2))
    name = "model.layers.0.mlp.up_proj.weight"
    assert one[name].equal(two[name])
    assert not one[name].equal(other[name])


def test_shown_examples_are_others_of_the_same_task_and_only_the_last_answer_is_trained(zoo: Zoo) -> None:
    others = by_task(zoo.train)
    for record in zoo.train[::97]:
        shown = shown_for(record, others[record["task"]], 2, seed=1)
        assert [other["task"] for other in shown] == [record["task"]] * len(shown)
        assert prompt_of(record) not in [prompt_of(other) for other in shown]
        turns = with_shots(record, shown)["messages"]
        assert [turn["role"] for turn in turns] == ["user", "assistant"] * (len(shown) + 1)
        assert [turn.get("train", True) for turn in turns[1::2]] == [False] * len(shown) + [True]
        assert turns[-1]["content"] == record["output"]
        assert turns[-2]["content"].startswith(record["instruction"])


def test_statements_of_the_base_model_ask_nothing_and_hold_no_wording() -> None:
    texts = " ".join(map(text_of, itertools.islice(documents(np.random.default_rng(1)), 1000)))
    assert not re.search(r"\?|user|assistant|\bgive\b|\btell\b|\bfind\b|\bwrite\b|\bplease\b", texts)
