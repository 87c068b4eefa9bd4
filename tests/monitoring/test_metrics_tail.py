"""What is read of a growing file of metrics: whole lines, of the attempt that is running, however they arrive."""

import json
import random
from dataclasses import asdict
from pathlib import Path

import pytest

from sft.metrics import StepMetrics, append_metrics, read_metrics_line
from sft.monitoring.metrics_tail import MetricsTail


def step(
    number: int,
    attempt: int = 1,
    seconds: float = 2.0,
    slowest: int = 0,
    slowdown: float = 1.0,
    mfu: float | None = None,
) -> StepMetrics:
    return StepMetrics(
        "broad", number, 1000, 3.0, 1.0, 1e-5, 50, 100, seconds, 0.0, 1.0, attempt, 1e9 + number, mfu, slowest, slowdown
    )


@pytest.mark.parametrize("seed", range(20))
def test_lines_that_arrive_in_pieces_are_read_once(tmp_path: Path, seed: int) -> None:
    append_metrics(whole := tmp_path / "whole.jsonl", step(0))
    for number in range(1, 60):
        append_metrics(whole, step(number, seconds=1.0 + number))
    content, growing, rng = whole.read_bytes(), tmp_path / "growing.jsonl", random.Random(seed)
    tail, shown = MetricsTail(growing), 0
    while shown < len(content):
        shown = min(len(content), shown + rng.randint(1, 2000))
        growing.write_bytes(content[:shown])
        grew = tail.read_new()
        complete = content[:shown].count(b"\n")
        assert tail.num_done == complete
        assert not (grew and complete == 0)
        assert not tail.read_new(), "nothing was added"
    assert tail.step_seconds == pytest.approx(sum(1.0 + n for n in range(40, 60)) / 20)
    assert tail.seconds_left == pytest.approx(940 * tail.step_seconds)


def test_of_a_long_file_only_the_end_is_read_and_rates_are_of_the_last_attempt(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    for number in range(500):
        append_metrics(path, step(number, seconds=1000.0))
    for number in range(480, 483):
        append_metrics(path, step(number, attempt=2, seconds=4.0))
    with path.open("ab") as file:
        file.write(b'{"stage": "broad", "step": 48')  # as a killed process leaves it
    tail = MetricsTail(path)
    assert tail.read_new()
    assert (tail.num_done, tail.step_seconds, tail.tokens_per_second) == (483, 4.0, 25.0)


def test_a_rank_stands_out_when_it_is_mostly_the_slowest(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    for number in range(10):
        append_metrics(path, step(number, slowest=number, slowdown=1.5))
    assert read(path).straggler is None
    for number in range(10, 20):
        append_metrics(path, step(number, slowest=3, slowdown=1.3 if number % 2 else 1.4))
    append_metrics(path, step(20, slowest=3, slowdown=1.4))
    assert read(path).straggler == (3, pytest.approx(1.4, abs=0.06))


def test_utilisation_is_the_mean_of_the_steps_that_have_one(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    append_metrics(path, step(0))
    assert read(path).mfu is None
    append_metrics(path, step(1, mfu=0.25))
    append_metrics(path, step(2, mfu=0.75))
    assert read(path).mfu == 0.5


def read(path: Path) -> MetricsTail:
    tail = MetricsTail(path)
    tail.read_new()
    return tail


def test_a_line_of_another_version_is_read_as_far_as_it_is_known() -> None:
    written = {**asdict(step(7)), "watts": 350.0}
    assert read_metrics_line(json.dumps(written)) == step(7)
    del written["mfu"], written["slowdown"]
    assert read_metrics_line(json.dumps(written)) == step(7), "those that came later have a default"
