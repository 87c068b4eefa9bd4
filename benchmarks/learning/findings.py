"""What came out: the mean score of each model in each group of questions, and differences between models.

Each training counts the same in a mean, and in a training each task. Intervals are those of `sft.scoring.statistics`:
they say what other questions of the same tasks would give to the same models. What another training would give shows
in how many of the trainings a difference has the same sign: it is seen only if that is so in nearly all of them, too
(by a sign test; of three trainings, in all; of fewer, it is never seen).
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

from benchmarks.learning.answers import Scored
from benchmarks.learning.arms import Arm
from benchmarks.learning.experiments import BASE, Experiment, Group, IsIn
from sft.scoring.statistics import Scores, macro_interval, paired_difference

WAYS = {"all": None, "written": False, "chosen": True}
"""Answers of either kind, or of one."""
_LEAST_PAIRED = 0.9
"""If fewer of the questions are the same for both models, tasks are paired instead."""
_LEAST_TRAININGS, _LEAST_FOR_TEST = 3, 6
_SIGN_TEST = 0.05


@dataclass(frozen=True, slots=True)
class Mean:
    """The mean score of a model."""

    model: str
    group: str
    shots: int
    way: str
    value: float
    low: float
    high: float
    num_questions: int
    chance: float
    by_training: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Contrast:
    """How much higher the second model's mean is."""

    first: str
    second: str
    group: str
    shots: int
    way: str
    value: float
    low: float
    high: float
    num_pairs: int
    paired: str
    """Questions, or tasks where the models were asked different questions."""
    by_training: tuple[float, ...]
    is_seen: bool

    @property
    def num_higher(self) -> int:
        """In how many trainings the second one is better."""
        return sum(value > 0 for value in self.by_training)


Trained = Mapping[str, Mapping[int, tuple[Arm, Sequence[Scored]]]]
"""Model → the seed of a training → its arm and its answers."""


def means_of(experiment: Experiment, trained: Trained, members: Mapping[str, IsIn]) -> list[Mean]:
    """The means of all models and groups for which there are answers."""
    found = []
    for model in experiment.models:
        for group in experiment.groups:
            for way in WAYS:
                scores, chance = _scores(trained.get(model, {}), group, way, members)
                if scores:
                    own = macro_interval(scores, _by_training(scores))
                    numbers = (own.value, own.low, own.high, own.num_examples, chance)
                    found.append(Mean(model, *group, way, *numbers, tuple(_trainings(scores).values())))
    return found


def contrasts_of(experiment: Experiment, trained: Trained, members: Mapping[str, IsIn]) -> list[Contrast]:
    """The differences of all pairs and groups for which both have answers of the same trainings."""
    found = []
    for first, second in experiment.pairs:
        for group in experiment.groups:
            for way in WAYS:
                scores = [_scores(trained.get(model, {}), group, way, members)[0] for model in (first, second)]
                one, other = ({cell: own[cell] for cell in scores[0].keys() & scores[1].keys()} for own in scores)
                if one:
                    found.append(_contrast((first, second), group, way, one, other))
    return found


def _contrast(models: tuple[str, str], group: Group, way: str, one: Scores, other: Scores) -> Contrast:
    """Of two models with scores of the same tasks and trainings."""
    difference, paired = paired_difference(one, other, _by_training(one)), "questions"
    if difference.num_pairs < _LEAST_PAIRED * min(sum(map(len, own.values())) for own in (one, other)):
        means = [{"tasks": {cell: fmean(own[cell].values()) for cell in own}} for own in (one, other)]
        difference, paired = paired_difference(*means), "tasks"
    before, after = _trainings(one), _trainings(other)
    by_training = tuple(after[seed] - before[seed] for seed in before)
    numbers = (difference.value, difference.low, difference.high, difference.num_pairs)
    is_seen = difference.is_seen and agree(by_training, difference.value)
    return Contrast(*models, *group, way, *numbers, paired, by_training, is_seen)


def agree(values: Sequence[float], whole: float) -> bool:
    """Whether so many trainings have the sign of the whole that it is no chance: all of few, and at least three."""
    num_same, num = sum(value * whole > 0 for value in values), len(values)
    if num < _LEAST_FOR_TEST:
        return num_same == num >= _LEAST_TRAININGS
    more = sum(math.comb(num, number) for number in range(num_same, num + 1)) / 2**num
    return 2 * more < _SIGN_TEST


def _scores(
    by_seed: Mapping[int, tuple[Arm, Sequence[Scored]]], group: Group, way: str, members: Mapping[str, IsIn]
) -> tuple[dict[str, dict[str, float]], float]:
    """`SEED/TASK` → record → score, of the questions in a group; and what guessing would score."""
    scores: dict[str, dict[str, float]] = {}
    chances: dict[str, float] = {}
    is_in, is_chosen = members[group.name], WAYS[way]
    for seed, (arm, answers) in by_seed.items():
        for one in answers:
            is_way = is_chosen is None or one.is_chosen == is_chosen
            if one.shots == group.shots and is_way and is_in(arm, one.task, one.source):
                scores.setdefault(f"{seed}/{one.task}", {})[one.record] = one.score
                chances[f"{seed}/{one.task}"] = one.chance
    per_training = [fmean(chances[cell] for cell in cells) for cells in _by_training(scores).values()]
    return scores, fmean(per_training) if per_training else math.nan


def _by_training(scores: Iterable[str]) -> dict[str, list[str]]:
    """Seed → its cells."""
    grouped: dict[str, list[str]] = {}
    for cell in scores:
        grouped.setdefault(cell.partition("/")[0], []).append(cell)
    return grouped


def _trainings(scores: Scores) -> dict[str, float]:
    """Seed → the mean over its tasks, in the order of the seeds."""
    grouped = sorted(_by_training(scores).items(), key=lambda item: int(item[0]))
    return {seed: fmean(fmean(scores[cell].values()) for cell in cells) for seed, cells in grouped}


def trained_models(experiment: Experiment, answered: Iterable[tuple[Arm, Mapping[str, Sequence[Scored]]]]) -> Trained:
    """The models of the arms of one experiment."""
    found: dict[str, dict[int, tuple[Arm, Sequence[Scored]]]] = {}
    for arm, models in answered:
        for model, answers in models.items():
            if model != BASE or arm.name == experiment.base_of:  # a run may be that of several arms
                found.setdefault(model, {})[arm.seed] = (arm, answers)
    return found


def rounded(finding: Mean | Contrast, digits: int = 4) -> dict[str, Any]:
    """The finding for a JSON file."""
    content = asdict(finding)
    for name, value in content.items():
        if isinstance(value, float):
            content[name] = round(value, digits)
    content["by_training"] = [round(value, digits) for value in finding.by_training]
    return content
