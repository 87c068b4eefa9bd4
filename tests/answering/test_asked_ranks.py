"""A model that is split over ranks, whole copies of it, and one that is not split give the same answers."""

import json
import math
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from sft.answering import asking as asking_module
from sft.answering.answer import Answer
from sft.answering.asking import Asking, Respondent, ask_all
from sft.answering.decoding import SAFE
from sft.answering.rounds import BatchSize, slices_of
from sft.answering.whole_model import WholeModel
from sft.answering.writing import Style
from sft.config import SftConfig
from sft.data.rendering.chat_template import load_tokenizer
from sft.data.tokenization import ExampleTokenizer
from sft.questions.question_set import open_questions
from sft.ranks.ranks import OneRank
from sft.run_folder import RunFolder
from sft.training.workload import prepare_workload
from sft.world import World
from tests.answering import asked_ranks
from tests.conftest import SmallRecords
from tests.forked_ranks import logs_of, zygote
from tests.questions.asked import write_records


@pytest.fixture(scope="module")
def settings(tiny_model_dir: Path, small_records: SmallRecords, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("asked")
    words = {"name": "words", "path": str(small_records.instructions), "task": {"column": "task"}}
    options = ["amber", "bell cart", "no", "drum"]
    picks = [{"instruction": f"Pick {i}", "output": options[i % 4], "options": options} for i in range(20)]
    pick = {"name": "pick", "path": write_records(folder / "pick.jsonl", picks)}
    content = {
        "run": {"name": "asked", "dir": str(folder / "run")},
        "model": {"path": str(with_large_weights(tiny_model_dir, folder / "model")), "dtype": "float32"},
        "data": {
            "sources": [words, pick],
            "cache_dir": str(folder / "cache"),
            "max_len_tokens": 256,
            "holdout": {"share": 0.3, "tasks": ["sort"]},
        },
        "stages": [{"name": "only", "budget": {"steps": 4}, "optimizer": {"lr": 1e-3}}],
        "train": {"pack_len_tokens": 256, "packs_per_step": 4},
        "evaluate": {
            "answers_per_task": 4,
            "max_new_tokens": 9,
            "shots": [0, 2],
        },
    }
    workload, _, _ = prepare_workload(SftConfig.model_validate(content))
    return {
        "config": content,
        "store": str(workload.store),
        "plan": str(RunFolder(folder / "run").stage(0, "only").packs),
        "packs_per_step": 4,
        "questions": str(workload.questions),
        "stops": [5, 300],
    }


def with_large_weights(source: Path, folder: Path) -> Path:
    """The model with weights so large that its first choice depends on the prompt."""
    shutil.copytree(source, folder)
    weights = load_file(folder / "model.safetensors")
    large = {name: tensor * (6 if tensor.ndim > 1 else 1) for name, tensor in weights.items()}
    save_file(large, folder / "model.safetensors", {"format": "pt"})
    return folder


def words_of(answer: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in answer.items() if name != "likelihoods"}


def ranks(settings: dict[str, Any], size: int, folder: Path, sequence_parallel: int = 1) -> Any:
    log = folder / "rank"
    codes = zygote().start(asked_ranks.run, size, log, settings, str(folder), sequence_parallel)
    assert not any(codes), logs_of(log)
    return json.loads((folder / "result.json").read_text())


@pytest.fixture(scope="module")
def alone(settings: dict[str, Any]) -> tuple[asked_ranks.Answers, list[list[float]]]:
    return asked_ranks.alone(settings)


@pytest.mark.parametrize(("size", "shared"), [(3, 1), pytest.param(2, 2, marks=pytest.mark.long)])
def test_every_way_gives_the_same_answers_and_leaves_the_training_alone(
    settings: dict[str, Any],
    alone: tuple[asked_ranks.Answers, list[list[float]]],
    size: int,
    shared: int,
    tmp_path: Path,
) -> None:
    answers, steps = alone
    assert len({answer["text"] for answer in answers}) > 6
    assert {answer["stopped"] for answer in answers if not answer["likelihoods"]} == {True, False}
    found = ranks(settings, size, tmp_path, shared)
    for name, (own, own_steps) in found.items():
        assert [words_of(answer) for answer in own] == [words_of(answer) for answer in answers], name
        for answer, right in zip(own, answers, strict=True):
            assert answer["likelihoods"] == pytest.approx(right["likelihoods"], rel=1e-4)
        assert own_steps == [pytest.approx(step, rel=1e-4) for step in steps], name


def test_time_that_is_over_leaves_questions_of_all_tasks(
    settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = SftConfig.model_validate(settings["config"])
    questions = open_questions(Path(settings["questions"]))
    model = WholeModel(config, config.model.path, World())
    respondent = Respondent(model, model.hf_model, ExampleTokenizer(load_tokenizer(config.model)), torch.device("cpu"))
    asking = Asking(Style((5,)), SAFE, "packed", in_step=False, size=BatchSize(rows=1), max_seconds=len(questions) / 2)
    kept: list[Answer] = []
    # A second passes with each answer.
    monkeypatch.setattr(asking_module.time, "monotonic", lambda: float(len(kept)))
    ask_all(questions, respondent, asking, OneRank(), kept.extend)
    assert len(kept) == math.ceil(len(questions) / 2)
    asked = {question.key: (question.task, question.shots) for question in questions}
    answered = Counter(asked[answer.key] for answer in kept)
    assert answered == {group: math.ceil(num / 2) for group, num in Counter(asked.values()).items()}


def test_slices_have_their_part_of_every_group_and_each_question_once() -> None:
    groups = ["a"] * 50 + ["b"] * 20 + ["c"] * 3
    slices = slices_of(groups, least=7)
    assert sorted(i for own in slices for i in own) == list(range(73))
    assert len(slices) == 10
    counts = [Counter(groups[i] for i in own) for own in slices]
    assert {(own["a"], own["b"]) for own in counts} == {(5, 2)}
    assert counts[0]["c"] == 1
    assert [*map(len, slices_of(groups, least=100))] == [73], "a batch is not cut"
    assert slices_of([], least=3) == [[]]
