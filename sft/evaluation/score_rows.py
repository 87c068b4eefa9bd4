"""Turns evaluations into the rows of a table: a metric by task, with a value of each evaluation, and its change."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sft.evaluation.scores import Evaluation, change_of, metrics_of
from sft.scoring.metric import Metric


@dataclass(frozen=True, slots=True)
class ScoreRow:
    """A task, or several together. A value is NaN where it was not measured."""

    name: str
    metric: Metric
    values: tuple[float, ...]
    """One for each evaluation, in the order of training."""
    change: float
    """From the first model to the last: a difference if the metric is a share, else relative to the first value."""
    unseen: bool = False
    num_examples: int = 0
    num_counted: int = 0
    """The count that the metric is a mean over."""

    @property
    def is_better(self) -> bool | None:
        """Whether the last is better than the first; None if they are equal, one is not known, or neither is better."""
        if not self.change or math.isnan(self.change) or self.metric.better == "neither":
            return None
        return (self.change < 0) == (self.metric.better == "lower")


def title_of(evaluation: Evaluation) -> str:
    """Which model was measured, as a title."""
    return evaluation.name if evaluation.stage_index is None else f"after {evaluation.name}"


def rows_of(evaluations: Sequence[Evaluation], metric: str) -> Iterator[ScoreRow]:
    """A row for each task: trained tasks first; within each kind, those with the largest count first."""
    about = metrics_of(evaluations)[metric]
    last = {name: task for e in evaluations for name, task in e.tasks.items() if metric in task.numbers}
    for name in sorted(last, key=lambda name: (last[name].unseen, -last[name].numbers[about.over], name)):
        task = last[name]
        values = [evaluation.value(metric, name) for evaluation in evaluations]
        num_examples, num_counted = (int(task.numbers.get(count, 0)) for count in ("num_examples", about.over))
        change = _change(evaluations, about, values)
        yield ScoreRow(name, about, tuple(values), change, task.unseen, num_examples, num_counted)


def total_of(evaluations: Sequence[Evaluation], metric: str, unseen: bool | None = None) -> ScoreRow:
    """All tasks together, or those of one kind."""
    about, name = metrics_of(evaluations)[metric], {None: "all", False: "trained tasks", True: "unseen tasks"}[unseen]
    values = [e.value(metric) if unseen is None else e.mean(metric, unseen) for e in evaluations]
    return ScoreRow(name, about, tuple(values), _change(evaluations, about, values))


def _change(evaluations: Sequence[Evaluation], metric: Metric, values: Sequence[float]) -> float:
    if len(values) < 2 or evaluations[0].stage_index is not None:
        return math.nan
    return change_of(metric, values[0], values[-1])
