"""From a run folder to points: each step and each evaluation once, in steps that count through all stages."""

import json
from pathlib import Path
from typing import Any

import pytest

from sft.evaluation.scores import LOSS, Evaluation, TaskScores, read_evaluation
from sft.run_folder import RunFolder
from sft.scoring.metric import Metric
from sft.sinks.run_reader import RunReader, evaluation_values
from tests.evaluation.answered_run import Task, answered_run
from tests.sinks.runs import STAGES, evaluate, planned_run, train


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return planned_run(tmp_path / "run")[1]


def reader(run: RunFolder, replaces: bool = False, state: Any = None) -> RunReader:
    return RunReader(run, STAGES, replaces, json.loads(json.dumps(state or {})))


def losses(reader: RunReader) -> list[tuple[str, int, float, bool]]:
    """(stage, step, loss, whether it rolls back) of each new step and evaluation."""
    found = []
    for point in reader.read():
        loss = point.values.get("train/loss", point.values.get("eval/qa/loss"))
        assert loss is not None
        found.append((point.stage, point.step, round(loss, 6), point.rolls_back))
    return found


def test_steps_count_through_the_stages(run: RunFolder) -> None:
    train(run, "broad", range(6))
    train(run, "words", range(2))
    assert [(stage, step) for stage, step, _, _ in losses(reader(run))] == [
        *(("broad", step) for step in range(1, 7)),
        ("words", 7),
        ("words", 8),
    ]


def test_a_step_has_the_names_that_people_look_for_and_only_what_is_known(run: RunFolder) -> None:
    train(run, "broad", range(1))
    (point,) = reader(run).read()
    assert point.values == {
        "train/loss": 2.0,
        "train/grad_norm": 1.5,
        "train/lr": 1e-3,
        "train/stage": 0,
        "train/attempt": 1,
        "throughput/tokens_per_second": 2000,
        "throughput/supervised_tokens_per_second": 1000,
        "throughput/step_seconds": 0.5,
        "throughput/checkpoint_stall_seconds": 0,
        "throughput/input_wait_seconds": 0.25,
        "throughput/slowest_rank_slowdown": 1,
        "memory/peak_gib": 1.25,
    }


def test_an_evaluation_stands_behind_the_steps_that_were_done(run: RunFolder) -> None:
    for file_name in ("base", "0-broad-step-00000003", "0-broad", "1-words-step-00000002"):
        evaluate(run, file_name, 3.0)
    (run.evaluations / "1-other.json").write_text("{}")  # a stage that is not in the config any more
    points = reader(run).read()
    assert sorted((p.step, p.stage) for p in points) == [(0, "broad"), (3, "broad"), (6, "broad"), (8, "words")]
    assert points[0].values == {"eval/loss": 3.5, "eval/qa/loss": 3.0, "eval/../maths & code/loss": 4.0}


def test_scores_are_sent_by_task_and_of_unseen_and_trained_tasks_under_names_that_every_sink_takes(
    tmp_path: Path,
) -> None:
    tasks = {"new": Task((0.5, 1.0), unseen=True, num=8), "old": Task((0.2, 0.9), num=4), "sort": Task((0, 1), num=20)}
    _, run = planned_run(tmp_path / "run")
    other = answered_run(tmp_path / "answered", tasks, (0, 3))
    other.evaluation().rename(run.evaluation())
    (point,) = reader(run).read()
    evaluation = read_evaluation(json.loads(run.evaluation().read_text()), None, None)
    scores = {task: evaluation.value("score@3", task) for task in tasks}
    assert {task: point.values[f"eval/{task}/score_3_shot"] for task in tasks} == scores
    assert point.values["eval/unseen_tasks/score_3_shot"] == scores["new"]
    assert point.values["eval/trained_tasks/score_3_shot"] == pytest.approx((scores["old"] + scores["sort"]) / 2)
    assert {"eval/score", "eval/score_3_shot", "eval/stopped", "eval/loss", "eval/new/loss"} <= set(point.values)
    assert "eval/new/exact_match" not in point.values, "it is the score"
    assert not any("@" in name for name in point.values)


@pytest.mark.parametrize(("num_tasks", "sent"), [(200, {"loss", "score"}), (600, {"score"}), (1001, set())])
def test_single_tasks_are_left_out_where_nobody_could_look_at_their_curves(num_tasks: int, sent: set[str]) -> None:
    numbers = {"loss": 2.0, "score": 0.5, LOSS.over: 1, "num_judged": 1}
    metrics = {"loss": LOSS, "score": Metric("score", "score", "higher", "num_judged", is_share=True)}
    tasks = {f"task {i}": TaskScores(numbers, i == 0) for i in range(num_tasks)}
    values = evaluation_values(Evaluation("base", metrics, {"loss": 2.0, "score": 0.5}, tasks))
    assert {name.rpartition("/")[2] for name in values if name.startswith("eval/task")} == sent
    assert {"eval/loss", "eval/score", "eval/unseen_tasks/score"} <= set(values)


def test_what_was_read_is_not_read_again_by_the_next_start(run: RunFolder) -> None:
    train(run, "broad", range(3))
    evaluate(run, "base", 3.0)
    first = reader(run)
    assert len(first.read()) == 4
    assert first.read() == []
    train(run, "broad", range(3, 5))
    second = reader(run, state=first.state)
    assert [step for _, step, _, _ in losses(second)] == [4, 5]


def test_a_line_that_is_being_written_waits_and_one_that_was_cut_off_is_passed_over(run: RunFolder) -> None:
    train(run, "broad", range(2))
    file = run.stage(0, "broad").metrics
    whole = file.read_bytes()
    file.write_bytes(whole[:-20])
    read = reader(run)
    assert [step for _, step, _, _ in losses(read)] == [1]
    train(run, "broad", range(1, 3), attempt=2)  # behind the cut-off line
    assert [step for _, step, _, _ in losses(read)] == [2, 3]


def test_a_long_file_comes_in_parts_that_lose_nothing(run: RunFolder) -> None:
    train(run, "broad", range(500))
    read = reader(run)
    parts = []
    while part := read.read():
        parts.append([point.step for point in part])
    assert len(parts) > 3
    assert sum(parts, []) == list(range(1, 501))


def test_steps_that_are_trained_again_replace_or_are_left_out(run: RunFolder) -> None:
    train(run, "broad", range(5))
    train(run, "broad", range(3, 6), attempt=2, loss=1.0)
    kept, replaced = losses(reader(run)), losses(reader(run, replaces=True))
    assert [(step, loss) for _, step, loss, _ in kept] == [(1, 2.0), (2, 1.9), (3, 1.8), (4, 1.7), (5, 1.6), (6, 0.5)]
    assert not any(rolls_back for *_, rolls_back in kept)
    assert [(step, rolls_back) for _, step, _, rolls_back in replaced[5:]] == [(4, True), (5, False), (6, False)]


def test_an_evaluation_that_is_measured_again_replaces_or_is_left_out(run: RunFolder) -> None:
    evaluate(run, "0-broad-step-00000003", 3.0)
    keeps, replaces = reader(run), reader(run, replaces=True)
    assert len(keeps.read()) == len(replaces.read()) == 1
    evaluate(run, "0-broad-step-00000003", 2.5, at=1.8e9)
    assert keeps.read() == []
    assert losses(replaces) == [("broad", 3, 2.5, False)]


def test_the_end_of_a_stage_that_was_extended_is_not_told_again(run: RunFolder) -> None:
    evaluate(run, "0-broad", 3.0)
    read = reader(run)
    assert len(read.read()) == 1
    # As sft.training.extension does.
    (run.evaluations / "0-broad.json").rename(run.evaluations / "0-broad-step-00000006.json")
    assert read.read() == []


def test_a_folder_that_is_away_for_a_moment_loses_no_point(run: RunFolder) -> None:
    train(run, "broad", range(6))
    train(run, "words", range(1))
    manifest = run.stage(0, "broad").packs / "manifest.json"
    away = manifest.rename(manifest.with_name("away"))
    read = reader(run)
    with pytest.raises(FileNotFoundError):
        read.read()
    away.rename(manifest)
    assert len(read.read()) == 7
