"""What lm-evaluation-harness measured becomes files and rows, with intervals and differences on the same examples."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from launcher.console import FitConsole
from sft.atomic_files import write_json
from sft.harness.comparison import harness_rows, harness_table
from sft.harness.results import HarnessScore, read_scores, samples_of, scores_in
from sft.json_lines import from_json

RIGHT = {"base": [0, 0, 1, 0], "tuned": [1, 0, 1, 1]}


def results_of(rights: list[int]) -> Mapping[str, Any]:
    """As `lm_eval.simple_evaluate` returns them: a group of one task, with a metric that is no mean of examples."""
    mean = sum(rights) / len(rights)
    numbers = {"alias": " - quiz", "acc,none": mean, "acc_stderr,none": 0.25, "bleu,first-line": 31.5}
    numbers |= {"bleu_stderr,first-line": "N/A", "perplexity,none": 7.5 - mean, "perplexity_stderr,none": 0.5}
    samples = [
        {"doc_id": i, "doc": {"question": "é"}, "filter": kind, "acc": right, "bleu": (1, 2), "perplexity": 2.5 + i}
        for i, right in enumerate(rights)
        for kind in ("none", "first-line")
    ]
    return {
        "results": {"all": {"acc,none": mean, "acc_stderr,none": 0.2}, "quiz": numbers},
        "groups": {"all": {"acc,none": mean, "acc_stderr,none": 0.2}},
        "group_subtasks": {"all": ["quiz"]},
        "higher_is_better": {"quiz": {"acc": True, "bleu": True, "perplexity": False}, "all": {"acc": True}},
        "n-samples": {"quiz": {"original": 100, "effective": 4}},
        "n-shot": {"quiz": 2},
        "samples": {"quiz": samples},
    }


@pytest.fixture
def models(tmp_path: Path) -> list[list[HarnessScore]]:
    for name, rights in RIGHT.items():
        write_json(tmp_path / f"{name}.json", {"scores": scores_in(results_of(rights))})
    return [read_scores(tmp_path / f"{name}.json") for name in RIGHT]


def test_each_metric_of_a_task_or_group_is_a_row_with_the_interval_of_its_standard_error(
    models: list[list[HarnessScore]],
) -> None:
    rows = {(row.name, row.score_name): row for row in harness_rows(models)}
    assert [*rows] == [("all", "acc"), ("quiz", "acc"), ("quiz", "bleu first-line"), ("quiz", "perplexity")]
    acc, bleu, perplexity = (rows["quiz", name] for name in ("acc", "bleu first-line", "perplexity"))
    assert {(row.shots, row.counts[0].num_answered) for row in rows.values()} == {(2, 4)}
    assert (acc.is_share, bleu.is_share, perplexity.is_share, rows["all", "acc"].is_share) == (True, False, False, True)
    base, tuned = acc.values
    assert (base.value, base.low) == (0.25, 0.0), "a share is not below 0"
    assert base.high == pytest.approx(0.25 + 1.96 * 0.25, abs=1e-3)
    assert (tuned.value, tuned.high) == (0.75, 1.0)
    assert math.isnan(bleu.values[0].low), "of this one nothing is known"
    assert perplexity.values[1].high == pytest.approx(6.75 + 1.96 * 0.5, abs=1e-3)


def test_models_are_compared_example_by_example_and_groups_by_their_standard_errors(
    models: list[list[HarnessScore]],
) -> None:
    rows = {(row.name, row.score_name): row for row in harness_rows(models)}
    change = rows["quiz", "acc"].change
    assert change is not None
    assert (change.value, change.num_pairs) == (0.5, 4)
    of_group = rows["all", "acc"].change
    assert of_group is not None
    assert of_group.high == pytest.approx(0.5 + 1.96 * math.hypot(0.2, 0.2), abs=1e-3)
    of_bleu = rows["quiz", "bleu first-line"].change
    assert of_bleu is not None
    assert not of_bleu.is_seen, "without a standard error nothing can be said"


def test_equal_scores_of_all_examples_are_not_certain() -> None:
    results = results_of([1, 1, 1, 1])
    results["results"]["quiz"]["acc_stderr,none"] = 0.0
    scores = [from_json(HarnessScore, score) for score in scores_in(results)]
    (row,) = [row for row in harness_rows([scores]) if (row.name, row.score_name) == ("quiz", "acc")]
    assert row.values[0].high == 1
    assert 0.3 < row.values[0].low < 0.7
    assert row.change is None


def test_the_table_fits_a_console_and_every_example_is_a_line(models: list[list[HarnessScore]]) -> None:
    rows = harness_rows([*models, models[0], models[1]])
    console = FitConsole(width=100, color_system=None)
    with console.capture() as capture:
        console.print(harness_table(["base", "after broad", "after narrow", "after special"], rows))
    text = capture.get()
    assert max(map(len, text.splitlines())) <= 100
    assert "after broad" not in text
    assert "1 model in between" in text
    assert "perplexity" in text
    lines = [json.loads(line) for line in samples_of(results_of([1, 0]))]
    assert [(line["task"], line["doc_id"], line["acc"]) for line in lines[::2]] == [("quiz", 0, 1), ("quiz", 1, 0)]
