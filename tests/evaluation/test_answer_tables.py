"""Scores of answers side by side: intervals, differences on the same questions, what fell; as tables and pictures."""

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from rich.table import Table

from launcher.console import FitConsole
from sft.answer_files import answers_of
from sft.evaluation.answer_plots import means_plot, tasks_plot
from sft.evaluation.answer_scores import Counts, TaskScore
from sft.evaluation.answer_table import answer_tables
from sft.evaluation.falls import falls
from sft.evaluation.report import render_report
from sft.evaluation.run_records import RunRecords, read_run
from sft.evaluation.score_comparison import OVER_CLUSTERS, OVER_EXAMPLES, OVER_TASKS, compared_means, compared_tasks
from sft.evaluation.score_texts import score_text
from sft.run_folder import RunFolder
from sft.scoring.statistics import paired_difference
from tests.evaluation.answered_run import Task, answered_run

YES_NO = ("yes", "no")
TASKS = {
    "anli": Task((0.3, 0.5, 0.6), "choice", True, 40, YES_NO),
    "rte": Task((0.5, 0.6, 0.7), "choice", True, 40, YES_NO),
    "words": Task((0.1, 0.2, 0.2), "number", True, 10),
    "squad": Task((0.2, 0.9, 0.3), "exact_match", False, 40),
    "sorting": Task((0.0, 0.8, 0.95), "exact_match", False, 30),
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    folder = tmp_path_factory.mktemp("answered") / "run"
    clusters = {"nli": ["anli", "rte"]}
    return answered_run(folder, TASKS, (0, 3), ("broad", "special"), clusters, {"broad": [10]})


@pytest.fixture(scope="module")
def records(run: RunFolder) -> RunRecords:
    return read_run(run)


def shown(tables: Sequence[Table], width: int = 100) -> str:
    console = FitConsole(width=width, color_system=None)
    with console.capture() as capture:
        for table in tables:
            console.print(table)
    return capture.get()


def test_values_are_the_means_of_the_evaluation_and_lie_in_their_intervals(records: RunRecords) -> None:
    rows = compared_tasks(records.scores)
    assert [(row.name, row.shots) for row in rows] == [
        (task, shots) for task in ("anli", "rte", "words", "sorting", "squad") for shots in (0, 3)
    ]
    for row in rows:
        name = f"score@{row.shots}" if row.shots else "score"
        for value, evaluation in zip(row.values, records.evaluations, strict=True):
            assert value.value == pytest.approx(evaluation.value(name, row.name))
            assert value.low <= value.value <= value.high
            assert value.high - value.low > 0.01, "no score is certain"
        assert [counts.num_answered for counts in row.counts] == [TASKS[row.name].num] * 3


def test_means_over_examples_tasks_and_clusters_keep_unseen_tasks_apart(records: RunRecords) -> None:
    rows = {(row.name, row.unseen, row.shots): row for row in compared_means(records.scores, records.clusters)}
    assert len(rows) == 12
    values = {row.name: row.values[1].value for row in compared_tasks(records.scores) if row.shots == 0}
    anli, rte, words = (values[name] for name in ("anli", "rte", "words"))
    assert rows[OVER_EXAMPLES, True, 0].values[1].value == pytest.approx((40 * anli + 40 * rte + 10 * words) / 90)
    assert rows[OVER_TASKS, True, 0].values[1].value == pytest.approx((anli + rte + words) / 3)
    assert rows[OVER_CLUSTERS, True, 0].values[1].value == pytest.approx(((anli + rte) / 2 + words) / 2)
    assert rows[OVER_TASKS, False, 0].values[1].value == pytest.approx((values["squad"] + values["sorting"]) / 2)


def test_a_task_that_a_later_stage_trains_on_is_a_trained_one_for_all_models(tmp_path: Path) -> None:
    tasks = {"first": Task((0.1, 0.9, 0.9), num=5), "later": Task((0.1, 0.1, 0.9), unseen=True, num=5)}
    run = answered_run(tmp_path / "run", tasks, stages=("broad", "special"))
    last = run.all_evaluations()[-1].path
    for path in (last, answers_of(last)):
        path.write_text(
            path.read_text().replace('"unseen": true', '"unseen": false').replace('"unseen":true', '"unseen":false')
        )
    records = read_run(run)
    assert {row.unseen for row in compared_means(records.scores, {})} == {False}
    assert not any(task.unseen for evaluation in records.evaluations for task in evaluation.tasks.values())


def test_pictures_have_no_place_for_what_was_not_asked_and_keep_labels_in_order(tmp_path: Path) -> None:
    run = answered_run(tmp_path / "run", {"عربي": Task((0.1, 0.9), unseen=True, num=5)}, (0, 3))
    plain = TaskScore("exact_match", False, {"a": 1.0, "b": 0.0}, math.nan, is_share=True, counts=Counts())
    found = read_run(run)
    scores = tuple(replace(one, tasks={**one.tasks, ("plain", 0): plain}) for one in found.scores)
    records = replace(found, scores=scores)
    assert means_plot(records).count("trained tasks") == 1
    assert "عربي\u200e · 0 shots" in tasks_plot(records)
    assert "plain · 0 shots" in tasks_plot(records)


def test_means_side_by_side_are_of_the_same_tasks_and_a_scale_is_that_of_the_score(tmp_path: Path) -> None:
    run = answered_run(tmp_path / "run", {"a": Task((0.5, 0.5), num=20), "b": Task((0.1, 0.9), "mine:free", num=20)})
    path = answers_of(run.evaluation())
    shares = read_run(run)
    assert [score.is_share for model in shares.scores for score in model.tasks.values()] == [True] * 4
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    without = [{**line, "score": None, "scores": {}} if line["task"] == "b" else line for line in lines]
    path.write_text("".join(json.dumps(line) + "\n" for line in without))
    row, *_ = compared_means(read_run(run).scores, {})
    assert [value.num_examples for value in row.values] == [20, 20], "the first model has no score of b"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    for file in (run.evaluation(), run.evaluation(run.stage(0, "broad"))):
        content = json.loads(file.read_text())
        content["metrics"]["free"]["is_share"] = False
        file.write_text(json.dumps(content))
    models = read_run(run).scores
    assert [row.is_share for row in compared_tasks(models)] == [True, False], "whatever their values are"
    row, *_ = compared_means(models, {})
    assert [value.num_examples for value in row.values] == [20, 20]


def test_differences_are_of_the_same_questions_from_first_to_last_and_from_each_to_the_next(
    records: RunRecords,
) -> None:
    base, _, special = records.scores
    (squad,) = [row for row in compared_tasks(records.scores) if (row.name, row.shots) == ("squad", 0)]
    assert [(pair.earlier, pair.later) for pair in squad.pairs] == [(0, 2), (0, 1), (1, 2)]
    key = ("squad", 0)
    own = paired_difference({"squad": base.tasks[key].scores}, {"squad": special.tasks[key].scores})
    assert squad.change == own
    assert squad.change.num_pairs == 40


def test_what_fell_is_compared_with_the_best_earlier_model_the_deepest_fall_first(records: RunRecords) -> None:
    found = falls(records.scores)
    assert {fall.task for fall in found if fall.difference.is_seen} == {"squad"}
    assert all(fall.earlier == 1 for fall in found if fall.task == "squad")
    certain = [fall.difference.value for fall in found if fall.difference.is_seen]
    assert all(a <= b < 0 for a, b in pairwise(certain))
    assert falls(records.scores[:1]) == falls([]) == []


def test_the_console_has_one_table_for_all_scores_and_one_of_what_fell(records: RunRecords) -> None:
    text = shown([*answer_tables(records.scores, records.clusters)])
    assert max(map(len, text.splitlines())) <= 100
    assert text.count("choice (50)") == 4, "the score of guessing"
    assert "no difference can be seen at this number of examples" in text
    assert "mean over clusters" in text
    (fallen,) = text.split("What fell")[1:]
    assert fallen.split("─\n")[1].split()[0] == "squad"
    assert "…" not in text.replace("…+", "").replace("…−", ""), "no name or number is cut"


def test_a_console_of_any_width_shows_every_score(records: RunRecords) -> None:
    text = shown([*answer_tables(records.scores, records.clusters)], width=48)
    assert max(map(len, text.splitlines())) <= 48
    assert all(text.count(task) >= 2 for task in TASKS)


def test_many_stages_tasks_and_gaps_fit_and_what_is_left_out_is_said(tmp_path: Path) -> None:
    tasks = {f"a_task_with_a_long_name_{i}": Task((0.1, 0.9), unseen=i % 2 == 0, num=3) for i in range(40)}
    run = answered_run(tmp_path / "run", tasks, (0,), [f"a-stage-with-a-long-name-{i}" for i in range(4)])
    path = run.evaluation()
    lines = [json.loads(line) for line in answers_of(path).read_text().splitlines()]
    lines[0] |= {"score": None, "scores": {}}
    answers_of(path).write_text("".join(json.dumps(line) + "\n" for line in lines[:-1]))
    evaluation = json.loads(path.read_text())
    evaluation["tasks"][lines[-1]["task"]]["num_not_answered"] = 1
    path.write_text(json.dumps(evaluation))
    records = read_run(run)
    base = records.scores[0].tasks
    assert sum(score.counts.num_not_judged for score in base.values()) == 1
    assert base[lines[-1]["task"], 0].counts.num_not_answered == 1
    text = shown([*answer_tables(records.scores, {})])
    assert max(map(len, text.splitlines())) <= 100
    assert "10 more are in the report" in text
    assert "3 evaluations in between" in text
    assert "1→0" in text
    page = render_report(run)
    assert "<th>not judged</th><th>not answered</th>" in page
    assert "<td>1 → 0</td>" in page


def test_the_report_has_one_table_for_scores_the_pictures_and_says_where_no_difference_can_be_seen(
    run: RunFolder, records: RunRecords
) -> None:
    page = render_report(run, records)
    assert page.count("<h2>") == page.count("</h2>")
    assert "Held-out score by task" not in page
    assert "Held-out loss by task" in page
    assert "no difference can be seen at 90 examples" in page or "no difference can be seen at 70 examples" in page
    for name in ("answers-means", "answers-tasks", "answers-curves"):
        assert page.count(f'id="{name}-figure_1"') == 1
    assert "score, unseen tasks, 3 shots" in page
    assert "answers.html#task=squad&amp;shots=0&amp;model=after+special&amp;against=after+broad&amp;result=lost" in page


def test_guessing_among_options_is_what_the_score_says_of_it_also_where_the_answer_is_written(tmp_path: Path) -> None:
    run = answered_run(tmp_path / "run", {"squad": TASKS["squad"], "rte": TASKS["rte"]})
    for file in run.all_evaluations():
        path = answers_of(file.path)
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        for line in lines:
            line["scores"] |= {"chance": 0.25} if line["task"] == "squad" else {}
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    records = read_run(run)
    assert [(row.name, row.chance) for row in compared_tasks(records.scores)] == [("rte", 0.5), ("squad", 0.25)]
    assert "exact_match (25)" in shown([*answer_tables(records.scores, {})])


def test_scores_that_are_no_shares_are_shown_as_they_are_and_not_averaged(tmp_path: Path) -> None:
    run = answered_run(tmp_path / "run", {"own": Task((0.2, 0.9), "length", num=5), "squad": TASKS["squad"]})
    records = read_run(run)
    assert {row.name: row.is_share for row in compared_tasks(records.scores)} == {"own": False, "squad": True}
    assert all(row.counts[0].num_answered == 40 for row in compared_means(records.scores, {}))
    assert [row.name for row in compared_means(records.scores, {})] == [OVER_EXAMPLES], "one task has one mean"


def test_a_run_without_answers_shows_none_and_one_without_their_file_the_means_of_the_evaluation(
    tmp_path: Path,
) -> None:
    run = answered_run(tmp_path / "run", {"squad": TASKS["squad"]})
    for file in run.all_evaluations():
        answers_of(file.path).unlink()
    records = read_run(run)
    assert (records.scores, [*answer_tables(records.scores, {})]) == ((), [])
    assert "Held-out score by task" in render_report(run, records)


@pytest.mark.parametrize(
    ("value", "is_share", "signed", "text"),
    [
        (0.634, True, False, "63"),
        (0.004, True, True, "+0.4"),
        (-0.004, True, True, "−0.4"),
        (-0.12, True, True, "−12"),
        (0.0, True, True, "0"),
        (4.25, False, False, "4.2"),
        (1234.5, False, False, "1,234"),
        (math.nan, True, False, "–"),
    ],
)
def test_scores_are_short(value: float, is_share: bool, signed: bool, text: str) -> None:
    assert score_text(value, is_share, signed=signed) == text
