"""Which evaluated step of a stage is the best, and for how many evaluations nothing was better.

Everything follows from the files of the evaluations, so a run that was killed decides as one that never was:

    0-broad-step-00000004.json …-08 …-12, and 0-broad.json at the end ──read_curve──▶ Curve ──▶ best · num_flat

A value that was not measured (NaN) is never better. Of equal values the first is the best.
"""

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import NamedTuple

from sft.atomic_files import read_json
from sft.config import BestConfig
from sft.evaluation.scores import read_evaluation
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
    points: dict[int, float] = {}
    higher = False
    for path, of_stage, num_steps in run.all_evaluations():
        step = up_to if num_steps is None else num_steps
        if of_stage != stage or step > up_to or (num_steps is None and not with_end):
            continue
        evaluation = read_evaluation(read_json(path), stage.index, num_steps)
        points[step] = evaluation.value(score, task)
        if score in evaluation.metrics:
            higher = evaluation.metrics[score].better == "higher"
    return Curve(tuple(Measured(step, points[step]) for step in sorted(points)), higher)
