"""Named metrics by task: joined, written, read of any version, and shown without anybody knowing which they are."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from rich.console import Console

from sft.answering.answer import Answer, read_answer
from sft.evaluation.judged_answers import JudgedAnswer, metrics_of_others, metrics_of_scores, sums_of
from sft.evaluation.report import render_report
from sft.evaluation.run_records import read_run
from sft.evaluation.score_rows import rows_of, total_of
from sft.evaluation.scores import LOSS, SCORE, Evaluation, Sums, evaluate, read_evaluation
from sft.evaluation.tables import score_table
from sft.json_lines import json_line
from sft.run_folder import RunFolder
from sft.scoring.metric import Metric
from sft.scoring.registry import read_score
from sft.scoring.scorer import Verdict

EXACT = Metric("exact match", "answers that are the reference's", "higher", "num_answers", is_share=True)
LENGTH = Metric("length", "tokens of an answer", "neither", "num_examples")
ROUGE = Metric("ROUGE-L", "ROUGE-L of an answer", "higher", "num_examples")


@dataclass(frozen=True)
class Given:
    """An evaluator that knows what comes out."""

    metrics: Mapping[str, Metric]
    sums: Sums

    def measure(self) -> Sums:
        return self.sums


LOSSES = Given(
    {"loss": LOSS},
    {
        "qa": {"loss": 30.0, "num_supervised_tokens": 10, "num_examples": 4},
        "sums": {"loss": 30.0, "num_supervised_tokens": 30, "num_examples": 6},
    },
)
ANSWERS = Given({"exact_match": EXACT}, {"qa": {"exact_match": 1, "num_answers": 4}})


def test_evaluators_are_joined_and_every_metric_is_a_mean_over_what_it_was_measured_of() -> None:
    found = evaluate([LOSSES, ANSWERS], "broad", ["sums"], step=7)
    by_task = {f"{task}/{name}": found.value(name, task) for task in found.tasks for name in found.metrics}
    assert {**found.totals, **by_task} == {
        "loss": 1.5,
        "qa/loss": 3.0,
        "sums/loss": 1.0,
        "exact_match": 0.25,
        "qa/exact_match": 0.25,
        "sums/exact_match": pytest.approx(math.nan, nan_ok=True),
    }
    assert (found.mean("loss", unseen=True), found.mean("loss", unseen=False)) == (1.0, 3.0)
    assert found.mean("exact_match", unseen=False) == 0.25
    assert math.isnan(found.mean("rouge", unseen=False))
    assert math.isnan(found.mean("exact_match", unseen=True))


def test_what_is_written_is_read_back_and_has_the_numbers_of_the_first_versions_in_their_places() -> None:
    found = evaluate([LOSSES, ANSWERS], "broad", ["sums"], step=7)
    content = json.loads(json.dumps(found.as_json()))
    assert read_evaluation(content, 0, 7) == replace(found, stage_index=0)
    assert (content["name"], content["step"], content["loss"]) == ("broad", 7, 1.5)
    first = {"loss": 1.0, "num_supervised_tokens": 30, "num_examples": 6, "unseen": True}
    assert content["tasks"]["sums"] == first


def test_a_file_of_the_first_versions_is_an_evaluation_of_the_loss() -> None:
    task = {"loss": None, "num_supervised_tokens": 30, "num_examples": 6, "unseen": True}
    read = read_evaluation({"name": "base", "step": None, "loss": 2.0, "tasks": {"sums": task}}, None, None)
    assert (read.metrics, read.totals, read.tasks["sums"].unseen) == ({"loss": LOSS}, {"loss": 2.0}, True)
    assert math.isnan(read.value("loss", "sums"))


def test_a_number_that_is_not_known_is_null_in_the_file_and_never_a_sum() -> None:
    """Strict readers of JSON, such as jq and those in browsers, refuse NaN."""
    loss = {"loss": math.inf, "num_supervised_tokens": 3}
    measured = Given({"loss": LOSS, "exact_match": EXACT}, {"qa": {**loss, "exact_match": 0.0, "num_answers": 0}})
    content = json.loads(json.dumps(evaluate([measured], "broad", []).as_json(), allow_nan=False))
    assert (content["loss"], content["exact_match"], content["tasks"]["qa"]["exact_match"]) == (None, None, None)
    assert math.isnan(read_evaluation(content, 0, None).value("loss", "qa"))
    answer = Answer("a@0", "yes", likelihoods=(math.nan, -1.0))
    line = json_line(answer.as_json())
    assert "NaN" not in line
    assert math.isnan(read_answer(json.loads(line)).likelihoods[0])


LENGTHS, OWN = read_score("length"), read_score({"name": "mine:grade", "scale": [0, 10]})


def judged(task: str, record: int, verdict: Verdict) -> JudgedAnswer:
    first = next(iter(verdict.scores.values()))
    answer = Answer(f"{record}@0", "", num_tokens=300)
    return JudgedAnswer(str(record), 0, 0, task, False, "", first, verdict.scores, "", answer)


def test_a_score_on_a_scale_of_its_own_is_no_part_of_the_mean_score_and_other_numbers_are_means() -> None:
    scores = {"long": LENGTHS, "qa": OWN}
    verdicts = [Verdict({"grade": 0.5}), Verdict({"grade": 1.0, "words": 4.0}), Verdict({"grade": 0.0, "words": 8.0})]
    answers = [judged("qa", i, verdict) for i, verdict in enumerate(verdicts)]
    answers += [judged("long", 9, Verdict({"answer_tokens": 300.0, "stopped": 1.0}))]
    sums = sums_of(answers, scores, {("qa", 0): 3, ("long", 0): 1})
    metrics = {**metrics_of_scores(scores, [0]), **metrics_of_others(scores, sums)}
    found = evaluate([Given(metrics, sums)], "broad", [])
    assert found.value("score") == found.value("grade") == 0.5
    assert "score" not in found.tasks["long"].numbers
    assert found.value("words", "qa") == 6.0, "of the two answers that have it"
    assert SCORE not in metrics_of_scores({"long": LENGTHS}, [0])


def evaluations(metric: Metric, first: float, last: float) -> list[Evaluation]:
    def one(value: float) -> Evaluation:
        return evaluate([Given({"m": metric}, {"t": {"m": value, metric.over: 1}})], "e", [])

    return [one(first), replace(one(last), stage_index=0)]


@pytest.mark.parametrize(
    ("metric", "first", "last", "change", "is_better"),
    [
        (LOSS, 4.0, 3.0, -0.25, True),
        (LOSS, 4.0, 5.0, 0.25, False),
        (ROUGE, 4.0, 5.0, 0.25, True),
        (EXACT, 0.5, 0.75, 0.25, True),
        (EXACT, 0.5, 0.25, -0.25, False),
        (EXACT, 0.0, 0.0, 0.0, None),
        (LENGTH, 4.0, 5.0, 0.25, None),
    ],
)
def test_a_change_is_better_in_the_direction_of_its_metric(
    metric: Metric, first: float, last: float, change: float, is_better: bool | None
) -> None:
    shown = evaluations(metric, first, last)
    for row in (*rows_of(shown, "m"), total_of(shown, "m")):
        assert (row.change, row.is_better) == (change, is_better)


def test_a_metric_that_no_version_knew_is_in_tables_plots_and_page(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.evaluations.mkdir()
    for path, answers in ((run.evaluation(), 1), (run.evaluation(run.stage(0, "broad")), 3)):
        measured = replace(ANSWERS, sums={"qa": {"exact_match": answers, "num_answers": 4, "num_examples": 9}})
        path.write_text(json.dumps(evaluate([LOSSES, measured], "broad", ["sums"]).as_json()))
    records = read_run(run)
    page = render_report(run)
    for text in ("Held-out loss by task", "Held-out exact match by task", "<th>answers</th>", "<td>75.0%</td>"):
        assert text in page
    assert "held-out answers that are the reference's (higher is better)" in page, "its plot"
    assert "25.0% → 75.0%<small>+50.0 pp, all tasks" in page
    console = Console(width=100, color_system=None)
    with console.capture() as capture:
        console.print(score_table(records.evaluations, "exact_match"))
    [line] = [line.split() for line in capture.get().splitlines() if line.startswith(" qa")]
    assert line == ["qa", "25.0%", "75.0%", "+50.0", "pp"]
