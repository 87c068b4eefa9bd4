"""What the last model does worse than an earlier one: the first, or that of an earlier stage."""

from collections.abc import Sequence
from dataclasses import dataclass

from sft.evaluation.answer_scores import ModelScores, keys_of
from sft.evaluation.score_comparison import difference_of, score_of
from sft.scoring.statistics import Difference, Interval


@dataclass(frozen=True, slots=True)
class Fall:
    """A task with a number of shots in which the last model is worse than an earlier one."""

    task: str
    shots: int
    unseen: bool
    score_name: str
    earlier: int
    """The model that it is compared with: of the earlier ones, that which was better by most."""
    before: Interval
    now: Interval
    difference: Difference
    """Below zero, on the questions that both answered."""
    is_share: bool
    chance: float


def falls(models: Sequence[ModelScores]) -> list[Fall]:
    """What fell, the deepest fall first; those that are certain before those that may be chance.

    Which earlier model was the best is taken from the same answers, so a small fall from it is partly luck of that
    model. A fall whose interval holds 0 says no more than that.
    """
    found = []
    last = models[-1] if models else None
    for task, shots in keys_of(models):
        own = last.tasks.get((task, shots)) if last else None
        if last is None or own is None or own.score_name == "length":
            continue
        compared = [(i, difference_of(model, last, task, shots)) for i, model in enumerate(models[:-1])]
        fallen = [(difference.value, i, difference) for i, difference in compared if difference is not None]
        if not fallen or min(fallen)[0] >= 0:
            continue
        _, i, difference = min(fallen, key=lambda one: one[:2])
        before, now = score_of(models[i], task, shots), score_of(last, task, shots)
        found.append(
            Fall(task, shots, own.unseen, own.score_name, i, before, now, difference, own.is_share, own.chance)
        )
    return sorted(found, key=lambda fall: (not fall.difference.is_seen, fall.difference.value, fall.task, fall.shots))
