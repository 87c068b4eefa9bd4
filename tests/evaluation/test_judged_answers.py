"""Processes that judge: tasks with one score share one, and what a task's answers do to it ends with the task."""

from pathlib import Path

import pytest

from sft.answering.answer import Answer
from sft.evaluation.judged_answers import judge
from sft.questions.question import Question
from sft.scoring.registry import read_score

OWN = """
import os


def process(answer, *_):
    if answer == "end":
        os._exit(3)
    return os.getpid()


def other(*_):
    return os.getpid()
"""


def question_of(task: str) -> Question:
    return Question(f"{task}/0", 0, 0, task, "s", "s:1", False, "generate", (), (), task, (1,), 8, ("4",))


def test_tasks_with_one_score_share_a_process_until_it_has_no_verdict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_score.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    names = {"a": "process", "b": "other", "c": "process", "d": "process", "e": "process", "f": "process"}
    questions = [question_of(task) for task in names]
    answers = {one.key: Answer(one.key, "end" if one.task == "d" else "4", "4") for one in questions}
    scores = {task: read_score({"name": f"my_score:{name}", "scale": None}) for task, name in names.items()}
    found = {one.task: one for one in judge(questions, answers, scores, False, lambda: None)}
    process = {task: one.scores.get(names[task]) for task, one in found.items()}
    assert process["d"] is None
    assert "ended with exit code 3" in found["d"].note
    assert process["a"] == process["c"]
    assert process["e"] == process["f"]
    assert len({process[task] for task in "abe"}) == 3
