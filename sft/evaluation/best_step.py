"""Which evaluated step of a stage is the best, and for how many evaluations nothing was better.

Everything follows from the files of the evaluations, so a run that was killed decides as one that never was:

    0-broad-step-00000004.json …-08 …-12, and 0-broad.json at the end ──read_curve──▶ Curve ──▶ best · num_flat

A value that was not measured (NaN) is never better. Of equal values the first is the best.

Values are compared over the same questions: time may have cut some evaluations short (`evaluate.max_minutes`), or the
config has changed how much is measured. Of answers those count whose questions every evaluation so far has a score of.
What has no answers, such as a loss, is compared with the newest evaluation only where it was measured on as much.
"""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from sft.answer_files import answers_of
from sft.atomic_files import read_json
from sft.config import BestConfig
from sft.evaluation.judged_answers import scores_in
from sft.evaluation.scores import Evaluation, read_evaluation
from sft.run_folder import RunFolder, StageFolder


class Measured(NamedTuple):
    """The value of a score after so many steps of a stage."""

    step: int
    value: float


@dataclass(frozen=True, slots=True)
class Curve:
    """A score after each evaluated step of a stage, in the order of steps."""

    points: tuple[Measured, ...]
    higher_is_better: bool = False

    def ranked(self) -> list[Measured]:
        """The points with a value, the best first."""
        sign = -1.0 if self.higher_is_better else 1.0
        known = [point for point in self.points if not math.isnan(point.value)]
        return sorted(known, key=lambda point: (sign * point.value, point.step))

    @property
    def best(self) -> Measured | None:
        """The best point; None if no value is known."""
        return next(iter(self.ranked()), None)

    @property
    def num_flat(self) -> int:
        """How many evaluations came after the best one; 0 if no value is known."""
        best = self.best
        return 0 if best is None else sum(point.step > best.step for point in self.points)

    def is_flat(self, best: BestConfig) -> bool:
        """Whether the stage ends here (`stop_when_flat`)."""
        return best.stop_when_flat is not None and self.num_flat >= best.stop_when_flat

    def only(self, steps: Collection[int]) -> "Curve":
        """The points of these steps."""
        return Curve(tuple(point for point in self.points if point.step in steps), self.higher_is_better)


def read_curve(
    run: RunFolder, stage: StageFolder, score: str, task: str | None, up_to: int, *, with_end: bool = False
) -> Curve:
    """The curve of a stage as its evaluations say.

    Args:
        run: holds the evaluations.
        stage: whose models were measured.
        score: the metric.
        task: the task whose metric it is; None: that of all tasks.
        up_to: what was measured after later steps does not count: a restart has rolled it back.
        with_end: whether the evaluation at the end of the stage is that of the step `up_to`.
    """
    found: dict[int, tuple[Evaluation, Path]] = {}
    for path, of_stage, num_steps in run.all_evaluations():
        step = up_to if num_steps is None else num_steps
        if of_stage != stage or step > up_to or (num_steps is None and not with_end):
            continue
        found[step] = read_evaluation(read_json(path), stage.index, num_steps), path
    found = dict(sorted(found.items()))
    values = {step: evaluation.value(score, task) for step, (evaluation, _) in found.items()}
    known = {step: found[step] for step, value in values.items() if not math.isnan(value)}
    counts = {step: _counts(evaluation, score, task) for step, (evaluation, _) in known.items()}
    if any(count != [*counts.values()][-1] for count in counts.values()):
        values |= _over_the_same(known, counts, score)
    higher = any(one.metrics[score].better == "higher" for one, _ in found.values() if score in one.metrics)
    return Curve(tuple(Measured(*point) for point in values.items()), higher)


def _counts(evaluation: Evaluation, score: str, task: str | None) -> dict[str, float]:
    """Task → over how much its value of the score is a mean, for each task whose value is looked at."""
    over = evaluation.metrics[score].over
    numbers = {name: own.numbers for name, own in evaluation.tasks.items() if task in (None, name)}
    return {name: own.get(over, 0.0) for name, own in numbers.items() if score in own}


def _over_the_same(
    known: Mapping[int, tuple[Evaluation, Path]], counts: Mapping[int, Mapping[str, float]], score: str
) -> dict[int, float]:
    """The value at each step over what all have measured; NaN where it cannot be compared with the newest."""
    answers = {step: answers_of(path) for step, (_, path) in known.items()}
    if all(path.is_file() for path in answers.values()):
        by_task = {step: scores_in(path, score, counts[step]) for step, path in answers.items()}
        flat = {
            step: {(task, key): value for task, own in scores.items() for key, value in own.items()}
            for step, scores in by_task.items()
        }
        if common := set.intersection(*({*own} for own in flat.values())):
            return {step: math.fsum(own[key] for key in common) / len(common) for step, own in flat.items()}
    newest = counts[max(known)]
    return {step: math.nan for step, count in counts.items() if count != newest}
