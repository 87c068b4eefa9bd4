"""The best step and the flat end of a stage follow from the files of its evaluations, and from nothing else."""

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sft.answer_files import answers_of
from sft.config import BestConfig
from sft.evaluation.best_step import Curve, Measured, read_curve
from sft.evaluation.judged_answers import write_judged
from sft.run_folder import RunFolder
from tests.evaluation.test_forgetting import judged

VALUES = st.lists(st.one_of(st.just(math.nan), st.integers(-3, 3).map(float)), max_size=12)


@given(values=VALUES, higher=st.booleans(), patience=st.integers(1, 4))
def test_the_first_of_the_best_counts_and_a_stage_ends_when_nothing_was_better_for_so_long(
    values: list[float], higher: bool, patience: int
) -> None:
    curve = Curve(tuple(Measured(10 * (i + 1), value) for i, value in enumerate(values)), higher)
    best, best_step, since = None, None, 0
    for step, value in curve.points:
        is_better = best is None or (value > best if higher else value < best)
        if not math.isnan(value) and is_better:
            best, best_step, since = value, step, 0
        elif best is not None:
            since += 1
    assert curve.best == (None if best_step is None else (best_step, best))
    assert curve.num_flat == since
    assert curve.is_flat(BestConfig(score="loss", stop_when_flat=patience)) == (since >= patience)
    assert not curve.is_flat(BestConfig(score="loss"))


def evaluation(better: str, value: float | None, of_task: float | None = None) -> str:
    about = {"title": "t", "text": "t", "better": better, "over": "n"}
    tasks = {"copy": {"n": 2, "unseen": False, **({} if of_task is None else {"score": of_task})}}
    return json.dumps({"name": "broad", "step": None, "score": value, "metrics": {"score": about}, "tasks": tasks})


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    run = RunFolder(tmp_path)
    run.evaluations.mkdir()
    stage, other = run.stage(0, "broad"), run.stage(1, "words")
    run.evaluation().write_text(evaluation("higher", 0.9))
    for step, value in ((4, 0.2), (8, 0.5), (12, 0.4)):
        run.evaluation(stage, step).write_text(evaluation("higher", value, of_task=1 - value))
    run.evaluation(stage).write_text(evaluation("higher", 0.6))
    run.evaluation(other, 4).write_text(evaluation("higher", 0.8))
    return run


def test_a_curve_has_the_stages_own_evaluations_up_to_a_step(run: RunFolder) -> None:
    stage = run.stage(0, "broad")
    assert read_curve(run, stage, "score", None, 10).points == ((4, 0.2), (8, 0.5))
    assert read_curve(run, stage, "score", None, 12).best == (8, 0.5)
    assert read_curve(run, stage, "score", None, 16, with_end=True).best == (16, 0.6)
    assert read_curve(run, stage, "score", None, 12, with_end=True).points[-1] == (12, 0.6)
    assert read_curve(run, stage, "score", "copy", 12).best == (4, 0.8)
    assert read_curve(run, stage, "score", "sort", 12).best is None
    assert read_curve(run, stage, "score", None, 12).only([4, 12]).best == (12, 0.4)


def answered(run: RunFolder, step: int | None, scores: list[float]) -> None:
    """An evaluation that time has cut short behind these answers to the first questions."""
    path = run.evaluation(run.stage(0, "cut"), step)
    numbers = {"exact_match": sum(scores) / len(scores), "n": len(scores)}
    about = {"title": "t", "text": "t", "better": "higher", "over": "n"}
    tasks = {"copy": {**numbers, "unseen": False}}
    path.write_text(
        json.dumps({"name": "cut", "step": step, **numbers, "metrics": {"exact_match": about}} | {"tasks": tasks})
    )
    write_judged(answers_of(path), [judged(number, 0, score) for number, score in enumerate(scores)])


@pytest.mark.parametrize("task", [None, "copy"])
def test_evaluations_that_were_cut_differently_are_compared_on_the_questions_that_all_answered(
    run: RunFolder, task: str | None
) -> None:
    stage = run.stage(0, "cut")
    answered(run, 4, [1, 0, 0, 0])
    answered(run, 8, [1, 1, 0, 0])
    assert read_curve(run, stage, "exact_match", task, 8).points == ((4, 0.25), (8, 0.5))
    # The easy questions come first: of all its answers, the one that was cut has the most right.
    answered(run, 12, [1, 0])
    curve = read_curve(run, stage, "exact_match", task, 12)
    assert (curve.best, curve.num_flat) == ((8, 1.0), 1)
    assert curve.points == ((4, 0.5), (8, 1.0), (12, 0.5))
    assert read_curve(run, stage, "exact_match", task, 8).best == (8, 0.5), "as it was decided then"
    answered(run, None, [1, 1, 1, 1])
    assert read_curve(run, stage, "exact_match", task, 16, with_end=True).best == (8, 1.0), "equal, and the first"


def test_a_loss_over_other_examples_is_not_compared_with_the_newest(run: RunFolder) -> None:
    stage = run.stage(0, "cut")
    for step, loss, count in ((4, 1.0, 10), (8, 3.0, 30), (12, 3.5, 30)):
        tasks = {"copy": {"loss": loss, "num_supervised_tokens": count, "unseen": False}}
        content = {"name": "cut", "step": step, "loss": loss, "tasks": tasks}
        run.evaluation(stage, step).write_text(json.dumps(content))
    curve = read_curve(run, stage, "loss", None, 12)
    assert (curve.best, curve.num_flat) == ((8, 3.0), 1)
    assert read_curve(run, stage, "loss", None, 4).best == (4, 1.0)
