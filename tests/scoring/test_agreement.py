"""Agreement of a judge with people: the textbook's numbers, and intervals that say what few marks can say."""

import math
import random
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sft.scoring.agreement import Agreement, grade_agreement, rank_agreement
from sft.scoring.statistics import Interval

PAIRS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=4, max_size=40)


def slow_kappa(pairs: Sequence[tuple[int, int]], weighted: bool) -> float:
    """One less how far apart the two are, as a part of how far apart each is from everybody of the other."""

    def apart(a: int, b: int) -> float:
        return (a - b) ** 2 if weighted else float(a != b)

    expected = sum(apart(a, b) for a, _ in pairs for _, b in pairs) / len(pairs) ** 2
    return 1 - sum(apart(a, b) for a, b in pairs) / len(pairs) / expected if expected else math.nan


def agreement(pairs: Sequence[tuple[int, int]], weighted: bool) -> Agreement:
    return grade_agreement([a for a, _ in pairs], [b for _, b in pairs], weighted=weighted)


def holds(interval: Interval) -> bool:
    return -1 <= interval.low <= interval.value <= interval.high <= 1


@given(PAIRS, st.booleans())
def test_kappa_is_the_obvious_one_and_lies_in_its_interval(pairs: list[tuple[int, int]], weighted: bool) -> None:
    found = agreement(pairs, weighted)
    slow = slow_kappa(pairs, weighted)
    assert found.coefficient.value == pytest.approx(slow, nan_ok=True)
    assert math.isnan(slow) or holds(found.coefficient)
    assert found.equal.value == pytest.approx(sum(a == b for a, b in pairs) / len(pairs))
    assert found.num_marks == len(pairs)


def test_kappa_of_a_textbook() -> None:
    pairs = [(1, 1)] * 20 + [(1, 0)] * 5 + [(0, 1)] * 10 + [(0, 0)] * 15
    found = agreement(pairs, weighted=False)
    assert found.coefficient.value == pytest.approx(0.4)
    assert (found.coefficient.low, found.coefficient.high) == pytest.approx((0.15, 0.64), abs=0.04)
    # The large-sample standard error of Fleiss, Cohen and Everitt (1969) gives 0.126.


@given(st.lists(st.tuples(st.floats(0, 1), st.sampled_from([0, 10, 20, 50, 100])), min_size=5, max_size=40))
def test_rank_correlation_is_that_of_scipy(pairs: list[tuple[float, float]]) -> None:
    from scipy.stats import spearmanr  # noqa: PLC0415  (most of a second, which each process of tests would take)

    grades, marks = [a for a, _ in pairs], [b for _, b in pairs]
    found = rank_agreement(grades, marks)
    if len(set(grades)) > 1 and len(set(marks)) > 1:
        assert found.coefficient.value == pytest.approx(spearmanr(grades, marks).statistic)
        assert holds(found.coefficient)
    else:
        assert math.isnan(found.coefficient.value)
    assert math.isnan(found.equal.value)


@pytest.mark.parametrize("num", [10, 200])
def test_full_agreement_of_few_is_not_certain_and_chance_is_not_excluded(num: int) -> None:
    draw = random.Random(num)
    same = [(i % 3, i % 3) for i in range(num)]
    chance = [(draw.randrange(3), draw.randrange(3)) for _ in range(num)]
    for weighted in (False, True):
        full = agreement(same, weighted).coefficient
        assert full.value == full.high == 1
        assert full.low < 1 - 1 / (4 * num)
        by_chance = agreement(chance, weighted).coefficient
        assert by_chance.low < 0 < by_chance.high
    ordered = rank_agreement(list(range(num)), [i / 7 for i in range(num)]).coefficient
    assert ordered.value == pytest.approx(1)
    assert 0 < ordered.low < 1 - 1 / (4 * num)
    few, many = (agreement([(i % 3, (i % 7 == 0) + i % 3) for i in range(n)], True).coefficient for n in (20, 200))
    assert few.high - few.low > 2 * (many.high - many.low)


def test_no_marks_and_one_that_says_always_the_same_have_no_coefficient() -> None:
    for pairs in ([], [(1, 1)] * 5):
        found = agreement(pairs, weighted=True)
        assert math.isnan(found.coefficient.value)
        assert found.num_marks == len(pairs)
    constant = agreement([(1, 0), (1, 1), (1, 2)], weighted=False).coefficient
    assert constant.value == 0
    assert constant.low <= 0 <= constant.high
