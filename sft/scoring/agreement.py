"""How far a judge agrees with people who marked the same answers: more than chance would give?

    grades of a judge, marks of people ─▶ Agreement: the share of equal ones, a coefficient, their intervals

Of labels, Cohen's kappa (Cohen 1960); of grades on one scale, with quadratic weights (Cohen 1968), so that 4 for 5 is
less wrong than 1 for 5. Of numbers on two scales, Spearman's rank correlation (Spearman 1904).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sft.scoring.statistics import LEVEL, NUM_DRAWS, Interval, Z, task_interval

MOST_GRADES = 11
"""Scales with more of them are compared by ranks: two people would seldom give the same grade."""

KAPPA, WEIGHTED_KAPPA, SPEARMAN = "kappa", "weighted kappa", "Spearman"

_Floats = npt.NDArray[np.floating]


@dataclass(frozen=True, slots=True)
class Agreement:
    """Of a judge with people."""

    equal: Interval
    """The share of equal grades; NaN where the scales differ."""
    name: str
    """Of the coefficient."""
    coefficient: Interval
    """0: as by chance; 1: the same order, or the same grades. NaN where it is not defined: one of both says always the
    same."""

    @property
    def num_marks(self) -> int:
        """How many answers both graded."""
        return self.coefficient.num_examples


def grade_agreement(grades: Sequence[int], marks: Sequence[int], *, weighted: bool, seed: int = 0) -> Agreement:
    """The agreement of grades on the same scale, or of labels by their numbers."""
    equal = task_interval({str(i): float(a == b) for i, (a, b) in enumerate(zip(grades, marks, strict=True))})
    name, num = WEIGHTED_KAPPA if weighted else KAPPA, len(grades)
    if len({*grades, *marks}) < 2:
        return Agreement(equal, name, _undefined(num))
    kinds, places = np.unique([[*grades], [*marks]], return_inverse=True)
    counts = np.zeros((kinds.size, kinds.size))
    np.add.at(counts, tuple(places.reshape(2, -1)), 1)
    distances = kinds[:, None] - kinds[None, :]
    weights = distances.astype(np.float64) ** 2 if weighted else (distances != 0).astype(np.float64)
    value = float(_kappa(counts, weights))
    # One example more, spread over all cells: of full agreement among few, the interval is not ±0.
    drawn = np.random.default_rng(seed).dirichlet(counts.ravel() + 1 / counts.size, NUM_DRAWS)
    ends = np.nanquantile(_kappa(drawn.reshape(-1, *counts.shape), weights), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Agreement(equal, name, _around(value, float(ends[0]), float(ends[1]), num))


def rank_agreement(grades: Sequence[float], marks: Sequence[float]) -> Agreement:
    """The agreement of two orders; the interval is that of Bonett and Wright (2000), by Fisher's transformation."""
    num = len(grades)
    first, second = (_ranks(np.asarray(values, dtype=np.float64)) for values in (grades, marks))
    if num < 4 or not first.std() or not second.std():
        return Agreement(_undefined(num), SPEARMAN, _undefined(num))
    value = float(np.corrcoef(first, second)[0, 1])
    drawn_in = value * num / (num + 1)  # one example more that does not agree: of the same order, it is not ±0
    middle, half = math.atanh(drawn_in), Z * math.sqrt((1 + value**2 / 2) / (num - 3))
    return Agreement(_undefined(num), SPEARMAN, _around(value, math.tanh(middle - half), math.tanh(middle + half), num))


def _kappa(cells: _Floats, weights: _Floats) -> _Floats:
    """Of tables (…, grades, marks) of counts or shares; NaN where all lies in one cell."""
    shares = cells / cells.sum(axis=(-2, -1), keepdims=True)
    by_chance = shares.sum(axis=-1, keepdims=True) * shares.sum(axis=-2, keepdims=True)
    expected = (by_chance * weights).sum(axis=(-2, -1))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(1 - (shares * weights).sum(axis=(-2, -1)) / expected)


def _ranks(values: _Floats) -> _Floats:
    """From 1; equal values share the mean of their ranks."""
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((counts.cumsum() - (counts - 1) / 2)[places])


def _around(value: float, low: float, high: float, num: int) -> Interval:
    return Interval(value, min(low, value), max(high, value), num)


def _undefined(num: int) -> Interval:
    return Interval(math.nan, math.nan, math.nan, num)
