"""Results of a model on held-out examples: named metrics by task, and the Protocol of what measures them.

    Evaluator --measure--> sums by task --evaluate--> Evaluation --as_json--> a file --read_evaluation--> Evaluation

Every metric is a mean over a count, so tasks and ranks are combined by adding up. A file describes its metrics, so the
code that shows it needs to know none of them.
"""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from sft.json_lines import from_json
from sft.scoring.metric import Metric
from sft.scoring.scorer import ANSWERED, JUDGED

LOSS = Metric("loss", "loss per supervised token", "lower", "num_supervised_tokens")

TOKEN_ACCURACY = Metric(
    "token accuracy",
    "accuracy per supervised token",
    "higher",
    LOSS.over,
    is_share=True,
    note="It is how often the model's first choice is the token of the answer, given everything before it.",
)

SCORE = "score"
"""The metric of answers that all tasks have, whatever each is scored by; with shots, `score@3`."""

Sums = Mapping[str, Mapping[str, float]]
"""Task → the sum of each metric over what it is a mean of, and each count, by name.

`num_examples` is among the counts. An evaluator that measures fewer examples counts them under another name.
"""


class Evaluator(Protocol):
    """Measures a model. It is built with the model and the data to measure on.

    The protocol has no more, so that results are kept, shown and sent on in the same way, whether they come from a
    forward pass over packs, from generated answers, or from a server.
    """

    @property
    def metrics(self) -> Mapping[str, Metric]:
        """What it measures, by name; of all that it measured, it may know some only then."""
        ...

    def measure(self) -> Sums:
        """The sums over all ranks, which call this together; each gets the same."""
        ...


@dataclass(frozen=True, slots=True)
class TaskScores:
    """The results of one task; no stage of the run trains on an `unseen` task."""

    numbers: Mapping[str, float]
    """Its metrics and counts, by name."""
    unseen: bool


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One measurement: of the first model, after a stage, or within it (with a step)."""

    name: str
    metrics: Mapping[str, Metric]
    totals: Mapping[str, float]
    """Each metric over the examples of all tasks."""
    tasks: Mapping[str, TaskScores]
    stage_index: int | None = None
    step: int | None = None

    def value(self, metric: str, task: str | None = None) -> float:
        """A metric of a task, or of all tasks; NaN if it was not measured."""
        numbers = self.totals if task is None else self.tasks[task].numbers if task in self.tasks else {}
        return numbers.get(metric, math.nan)

    def mean(self, metric: str, unseen: bool) -> float:
        """A metric over the tasks of one kind; NaN if there is none."""
        return value_over(self, metric, [name for name, task in self.tasks.items() if task.unseen == unseen])

    def mean_of_tasks(self, metric: str, unseen: bool) -> float:
        """The mean over tasks of one kind, however many examples they have; NaN if there is none."""
        of_kind = [
            task.numbers[metric] for task in self.tasks.values() if task.unseen == unseen and metric in task.numbers
        ]
        known = [value for value in of_kind if math.isfinite(value)]
        return sum(known) / len(known) if known else math.nan

    def as_json(self) -> dict[str, Any]:
        """What is written to its file, whose name says which stage it belongs to.

        A number that is not known is null: strict readers of JSON refuse NaN.
        """
        return {
            "name": self.name,
            "step": self.step,
            **_known(self.totals),
            "tasks": {name: {**_known(task.numbers), "unseen": task.unseen} for name, task in self.tasks.items()},
            "metrics": {name: asdict(metric) for name, metric in self.metrics.items()},
        }


def value_over(evaluation: Evaluation, metric: str, tasks: Collection[str]) -> float:
    """A metric over these tasks together; NaN if it was measured for none."""
    numbers = [evaluation.tasks[task].numbers for task in tasks if task in evaluation.tasks]
    measured = [own for own in numbers if metric in own]
    counts = [own[evaluation.metrics[metric].over] for own in measured]
    values = [own[metric] * count for own, count in zip(measured, counts, strict=True)]
    return sum(values) / sum(counts) if sum(counts) else math.nan


def change_of(metric: Metric, first: float, last: float) -> float:
    """How much a value changed: a difference if the metric is a share, else relative to the first value."""
    if metric.is_share:
        return last - first
    return last / first - 1 if first > 0 else math.nan


def evaluate(
    evaluators: Iterable[Evaluator], name: str, unseen_tasks: Sequence[str], step: int | None = None
) -> Evaluation:
    """The results of all evaluators; all ranks call this together.

    Args:
        evaluators: each has its own metrics.
        name: of the model that is measured.
        unseen_tasks: tasks that no stage of the run trains on.
        step: the step of the stage after which it is measured; None at the end of a stage.
    """
    metrics: dict[str, Metric] = {}
    sums: dict[str, dict[str, float]] = {}
    for evaluator in evaluators:
        for task, added in evaluator.measure().items():
            sums.setdefault(task, {}).update(added)
        metrics |= evaluator.metrics
    totals = {metric: _mean(metrics[metric], metric, sums.values()) for metric in metrics}
    tasks = {}
    for task, added in sums.items():
        means = {metric: _mean(metrics[metric], metric, [added]) for metric in metrics if metric in added}
        tasks[task] = TaskScores({**added, **means}, task in unseen_tasks)
    return Evaluation(name, metrics, totals, tasks, step=step)


def _mean(about: Metric, metric: str, sums: Iterable[Mapping[str, float]]) -> float:
    """The mean over the tasks with this metric; NaN if there is none."""
    measured = [(added[metric], added[about.over]) for added in sums if metric in added]
    count = sum(over for _, over in measured)
    return sum(value for value, _ in measured) / count if count else math.nan


def read_evaluation(content: Mapping[str, Any], stage_index: int | None, step: int | None) -> Evaluation:
    """The evaluation in a file of any version: the first versions measured only the loss, and did not describe it."""
    metrics = {name: from_json(Metric, about) for name, about in content.get("metrics", {}).items()} or {"loss": LOSS}
    tasks = {
        name: TaskScores({key: _number(n) for key, n in task.items() if key != "unseen"}, bool(task.get("unseen")))
        for name, task in content["tasks"].items()
    }
    totals = {name: _number(content[name]) for name in metrics if name in content}
    return Evaluation(str(content["name"]), metrics, totals, tasks, stage_index, step)


def main_metrics(evaluations: Iterable[Evaluation]) -> dict[str, Metric]:
    """Those that are shown first: where answers have a score, it stands for all that is measured of them."""
    metrics = metrics_of(evaluations)
    scores = {name for name in metrics if name.partition("@")[0] == SCORE}
    return {name: about for name, about in metrics.items() if not scores or name in scores or about.over == LOSS.over}


def metrics_beside_answers(evaluations: Iterable[Evaluation]) -> dict[str, Metric]:
    """Those that are shown by themselves where the scores of answers have a table of their own."""
    answered = (JUDGED, ANSWERED, "num_chosen")
    return {name: about for name, about in metrics_of(evaluations).items() if not about.over.startswith(answered)}


def metrics_of(evaluations: Iterable[Evaluation]) -> dict[str, Metric]:
    """The metrics of all of these evaluations."""
    return {name: metric for evaluation in evaluations for name, metric in evaluation.metrics.items()}


def _known(numbers: Mapping[str, float]) -> dict[str, float | None]:
    return {name: value if math.isfinite(value) else None for name, value in numbers.items()}


def _number(value: float | None) -> float:
    return math.nan if value is None else value
