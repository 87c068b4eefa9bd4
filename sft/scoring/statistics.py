"""Intervals of means, and differences between two models: what may be said at this number of examples, and what not.

    scores: task ─▶ question ─▶ score   ─▶ Interval of a task, over examples (micro), over tasks or clusters (macro)
    scores of two models                ─▶ Difference on the questions that both answered

Of a share of yes and no in one group, Wilson's interval (Wilson 1927; Brown, Cai and DasGupta 2001 recommend it for few
examples). Else a Bayesian bootstrap over examples (Rubin 1981), stratified: it draws other examples of the same tasks,
and says nothing of other tasks.

A plain bootstrap says ±0 where all examples of a task have the same score, which is wrong. Here half an example more
lies at each end of what was seen; where all are equal, at each end of the scale. For yes and no this is Jeffreys'
prior, so a group of 10 wrong answers is as uncertain as it should be. That draws means towards the middle, so only the
spread of the draws is kept, around the mean as it is, and widened where there are few examples. One score without a
scale, or several equal ones, say nothing of how far others may lie: their interval has no ends.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

Scores = Mapping[str, Mapping[str, float]]
"""Task → question → score."""
Scale = tuple[float, float] | None
"""The least and the most that a score can be; None if there is no limit, as for a length."""
SHARE: Scale = (0.0, 1.0)
LEVEL = 0.95
NUM_DRAWS = 1000

Z = NormalDist().inv_cdf((1 + LEVEL) / 2)
"""So many standard errors lie between a mean and each end of its interval, where it is normal."""

_Floats = npt.NDArray[np.floating]
_HALF = 0.5


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean, and where the true one lies with the confidence of `LEVEL`."""

    value: float
    low: float
    high: float
    num_examples: int


@dataclass(frozen=True, slots=True)
class Difference:
    """How much higher the second model's mean is than the first's, on the same questions."""

    value: float
    low: float
    high: float
    num_pairs: int
    num_unpaired: int
    """Questions that only one of them has a score of; they do not count."""

    @property
    def is_seen(self) -> bool:
        """Whether there is a difference; if not, none can be seen at this number of examples."""
        return not self.low <= 0.0 <= self.high

    def __str__(self) -> str:
        """For tables and messages."""
        shown = f"{self.value:+.3f} [{self.low:+.3f}, {self.high:+.3f}]"
        return shown if self.is_seen else f"{shown}: no difference can be seen at {self.num_pairs:,} examples"


def task_interval(scores: Mapping[str, float], scale: Scale = SHARE, seed: int = 0) -> Interval:
    """The mean over the questions of a task."""
    return _interval([[*scores.values()]], [1.0], scale, seed)


def micro_interval(scores: Scores, scale: Scale = SHARE, seed: int = 0) -> Interval:
    """The mean over all examples: large tasks count more."""
    groups = _groups(scores)
    num_examples = sum(map(len, groups))
    return _interval(groups, [len(group) / num_examples for group in groups], scale, seed)


def macro_interval(
    scores: Scores, clusters: Mapping[str, Iterable[str]] | None = None, scale: Scale = SHARE, seed: int = 0
) -> Interval:
    """The mean over the means of tasks, or with clusters, of clusters: each counts the same, however large it is.

    Args:
        scores: of each task.
        clusters: cluster → its tasks. A task of none is a cluster by itself; one of several counts in each.
        scale: of the scores.
        seed: of the draws.
    """
    return _interval(_groups(scores), task_weights(scores, clusters), scale, seed)


def task_weights(scores: Scores, clusters: Mapping[str, Iterable[str]] | None = None) -> list[float]:
    """What each task with scores counts in the mean over tasks or clusters; sums to 1."""
    tasks = [task for task in sorted(scores) if scores[task]]
    given = [[task for task in tasks if task in {*members}] for members in (clusters or {}).values()]
    grouped = {task for members in given for task in members}
    parts = [part for part in given if part] + [[task] for task in tasks if task not in grouped]
    return [sum(1 / len(part) for part in parts if task in part) / len(parts) for task in tasks]


def paired_difference(
    first: Scores,
    second: Scores,
    clusters: Mapping[str, Iterable[str]] | None = None,
    scale: Scale = SHARE,
    seed: int = 0,
    *,
    by_task: bool = False,
) -> Difference:
    """The difference of two models in the mean over examples; `by_task` or with clusters, over tasks or clusters.

    Differences are drawn question by question: what makes a question hard for both does not count.
    """
    deltas = {task: _deltas(first.get(task, {}), second.get(task, {})) for task in {*first, *second}}
    groups = _groups(deltas)
    num_pairs = sum(map(len, groups))
    num_unpaired = sum(len({*first.get(task, {})} ^ {*second.get(task, {})}) for task in {*first, *second})
    if by_task or clusters is not None:
        weights = task_weights(deltas, clusters)
    else:
        weights = [len(group) / num_pairs for group in groups]
    found = _interval(groups, weights, scale, seed, are_differences=True)
    return Difference(found.value, found.low, found.high, num_pairs, num_unpaired)


def wilson(num_yes: float, num: float) -> tuple[float, float]:
    """Wilson's score interval of a share; `num` may be a number that so many independent examples would stand for."""
    z, share = Z, num_yes / num
    middle = (share + z * z / (2 * num)) / (1 + z * z / num)
    half = z / (1 + z * z / num) * math.sqrt(share * (1 - share) / num + z * z / (4 * num * num))
    return max(0.0, middle - half), min(1.0, middle + half)


def _groups(scores: Scores) -> list[list[float]]:
    """The scores of each task that has some, in the order of their names: a result depends on no other order."""
    return [[scores[task][question] for question in sorted(scores[task])] for task in sorted(scores) if scores[task]]


def _deltas(first: Mapping[str, float], second: Mapping[str, float]) -> dict[str, float]:
    return {question: second[question] - first[question] for question in first if question in second}


def _interval(
    groups: Sequence[Sequence[float]],
    weights: Sequence[float],
    scale: Scale,
    seed: int,
    *,
    are_differences: bool = False,
) -> Interval:
    """The interval of a weighted sum of the groups' means."""
    num_examples = sum(map(len, groups))
    if not num_examples:
        return Interval(math.nan, math.nan, math.nan, 0)
    arrays = [np.asarray(group, dtype=np.float64) for group in groups]
    value = float(sum(weight * array.mean() for weight, array in zip(weights, arrays, strict=True)))
    if scale is None and any(_says_nothing(array, are_differences) for array in arrays):
        return Interval(value, -math.inf, math.inf, num_examples)
    if scale == SHARE and not are_differences and _is_one_share(arrays):
        # As many examples as would give the same variance if each counted the same: all of them, in one group.
        num = 1 / sum(weight**2 / array.size for weight, array in zip(weights, arrays, strict=True))
        low, high = wilson(value * num, num)
        return Interval(value, min(low, value), max(high, value), num_examples)
    rng = np.random.default_rng(seed)
    spread, variance, squares = np.zeros(NUM_DRAWS), 0.0, 0.0
    for weight, array in zip(weights, arrays, strict=True):
        drawn = weight * _spread(array, _ends(array, scale, are_differences), rng)
        spread += drawn
        variance += float(drawn.var())
        squares += float(drawn.var()) ** 2 / array.size
    # The degrees of freedom of a sum of means, after Satterthwaite (1946).
    wider = _student(variance**2 / squares) / Z if squares else 1.0
    low, high = value + wider * np.quantile(spread, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    least, most = _limits(scale, are_differences)
    return Interval(value, min(value, max(float(low), least)), max(value, min(float(high), most)), num_examples)


def _is_one_share(arrays: Sequence[_Floats]) -> bool:
    """Whether these are a single group of yes and no, or several in which all are yes, or all no."""
    seen = {*np.unique(np.concatenate(arrays)).tolist()}
    return seen <= {0.0, 1.0} and (len(arrays) == 1 or len(seen) == 1)


def _says_nothing(array: _Floats, are_differences: bool) -> bool:
    """Whether nothing is known of how far other examples may lie from these."""
    return array.size == 1 or bool(array.min() == array.max() and not (are_differences and array.any()))


def _ends(array: _Floats, scale: Scale, are_differences: bool) -> tuple[float, float]:
    """Where the two half examples lie."""
    least, most = float(array.min()), float(array.max())
    if are_differences:
        # Also where one model is never the worse one: it may be on other questions.
        most = max(abs(least), abs(most)) or (scale[1] - scale[0] if scale else 0.0)
        return -most, most
    return (least, most) if least < most or scale is None else scale


def _spread(array: _Floats, ends: tuple[float, float], rng: np.random.Generator) -> _Floats:
    """Draws of the mean of other examples like these, less their own mean."""
    values, counts = np.unique(array, return_counts=True)
    if values.size == array.size:  # what standard_gamma(1) draws, in a third of its time
        weights: _Floats = rng.standard_exponential((NUM_DRAWS, values.size), dtype=np.float32)
    else:
        weights = rng.standard_gamma(counts, (NUM_DRAWS, values.size))
    at_ends = rng.standard_gamma(_HALF, (NUM_DRAWS, 2))
    sums = weights @ values.astype(weights.dtype) + at_ends @ np.asarray(ends)
    means = sums / (weights.sum(axis=1) + at_ends.sum(axis=1))
    # So that the variance is right on average for a share of a half, from one example on.
    num = array.size
    factor = math.sqrt((num + 2) / num / (1 - num / (num + 1) ** 2))
    return np.asarray(factor * (means - means.mean()))


def _student(freedom: float) -> float:
    """The quantile of Student's t at `LEVEL`, from that of the normal (Abramowitz and Stegun 1964, 26.7.5)."""
    return Z + (Z**3 + Z) / (4 * freedom) + (5 * Z**5 + 16 * Z**3 + 3 * Z) / (96 * freedom**2)


def _limits(scale: Scale, are_differences: bool) -> tuple[float, float]:
    if scale is None:
        return -math.inf, math.inf
    return (scale[0] - scale[1], scale[1] - scale[0]) if are_differences else scale
