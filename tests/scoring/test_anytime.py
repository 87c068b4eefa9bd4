"""The upper end at every look: exact, and wrong about at most one set of twenty, however often people look."""

from fractions import Fraction
from math import ceil, comb, floor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sft.approval.rule import upper_end
from sft.scoring.anytime import anytime_upper
from sft.scoring.statistics import wilson


def rising(start: float, times: int) -> Fraction:
    product = Fraction(1)
    for i in range(times):
        product *= Fraction(start) + i
    return product


@given(st.integers(1, 40), st.data())
@settings(max_examples=60, deadline=None)
def test_it_is_the_largest_number_that_is_not_twenty_times_less_probable(num_all, data) -> None:
    seen = data.draw(st.integers(1, num_all))
    wrong = data.draw(st.integers(0, seen))
    # Pólya's urn with 1/2 wrong and 20 right, of sequences with these counts.
    mixture = rising(0.5, wrong) * rising(20, seen - wrong) / rising(20.5, seen) * comb(seen, wrong)

    def chance(number: int) -> Fraction:
        return Fraction(comb(number, wrong) * comb(num_all - number, seen - wrong), comb(num_all, seen))

    possible = [number for number in range(num_all + 1) if mixture < 20 * chance(number)]
    assert anytime_upper(wrong, seen, num_all) == max(possible) / num_all


def needs(num_all: int, bound: float) -> list[int]:
    """With k wrong ones, so many records have to be seen, for k from 0 on until these are all."""
    found: list[int] = []
    while not found or found[-1] < num_all:
        wrong, low, high = len(found), len(found), num_all
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if upper_end(wrong, middle, num_all) < bound else (middle, high)
        found.append(high)
    return found


def chance_to_pass(num_all: int, num_wrong: int, bound: float) -> float:
    """Exactly, of a set with so many wrong ones, that the sample suffices at any number before all are seen."""
    need = needs(num_all, bound)
    chances, passed, wrong = np.zeros(num_wrong + 2), 0.0, np.arange(num_wrong + 2)
    chances[0] = 1.0
    for seen in range(1, num_all):
        hit = chances * np.clip((num_wrong - wrong) / (num_all - seen + 1), 0, 1)
        chances = chances - hit
        chances[1:] += hit[:-1]
        stops = [k for k, least in enumerate(need[: num_wrong + 2]) if k <= seen and least <= seen < num_all]
        passed += chances[stops].sum()
        chances[stops] = 0.0
    return float(passed)


@pytest.mark.parametrize(("num_all", "bound"), [(60, 0.1), (500, 0.05), (2000, 0.02), (2000, 0.05), (1500, 0.2)])
def test_of_sets_at_the_bound_at_most_one_in_twenty_ever_passes(num_all: int, bound: float) -> None:
    at_bound = ceil(bound * num_all)
    assert 0.001 < chance_to_pass(num_all, at_bound, bound) <= 0.05
    assert chance_to_pass(num_all, ceil(1.25 * at_bound), bound) < 0.02
    assert chance_to_pass(num_all, at_bound // 5, bound) > 0.7, "good sets pass"


@pytest.mark.parametrize("sizes", [(500,), (250, 150, 100), (480, 20), (25,) * 20])
def test_the_same_holds_where_each_task_has_its_share_of_the_sample(sizes: tuple[int, ...]) -> None:
    """In the order of the review, with wrong records anywhere, or all in the last tasks."""
    rng, num_sets, num_all, bound = np.random.default_rng(7), 2000, 500, 0.05
    tasks = np.repeat(np.arange(len(sizes)), sizes)
    for spread in (True, False):
        wrong = np.zeros((num_sets, num_all), dtype=bool)
        wrong[:, -25:] = True
        wrong = rng.permuted(wrong, axis=1) if spread else wrong
        places = np.empty((num_sets, num_all))
        for task, size in enumerate(sizes):
            ranks = rng.permuted(np.tile(np.arange(size), (num_sets, 1)), axis=1)
            places[:, tasks == task] = (ranks + rng.random((num_sets, size))) / size
        seen = np.take_along_axis(wrong, places.argsort(axis=1), axis=1).cumsum(axis=1)
        stops = [(k, least) for k, least in enumerate(needs(num_all, bound)) if least < num_all]
        passed = np.any([seen[:, least - 1] <= k for k, least in stops], axis=0)
        assert passed.mean() <= 0.05 + 3 * (0.05 * 0.95 / num_sets) ** 0.5


def test_the_price_is_what_the_docs_say(docs_review: str) -> None:
    for wrong in (0, 1, 2, 5, 10, 20):
        every = needs(10_000, 0.05)[wrong]
        once = next(n for n in range(max(1, wrong), 10_000) if wilson(wrong, n)[1] < 0.05)
        assert f"| {wrong} | {once} | {every} |" in docs_review


@pytest.fixture
def docs_review(request: pytest.FixtureRequest) -> str:
    return (request.config.rootpath / "docs" / "REVIEW.md").read_text(encoding="utf-8")


@given(st.integers(2, 400), st.data())
@settings(max_examples=60, deadline=None)
def test_a_right_record_more_never_raises_a_low_upper_end(num_all, data) -> None:
    seen = data.draw(st.integers(1, num_all - 1))
    wrong = data.draw(st.integers(0, floor(seen / 2)))
    before, after = (anytime_upper(wrong, num, num_all) for num in (seen, seen + 1))
    assert after <= before or before > 0.5
    assert anytime_upper(wrong, seen, num_all) >= wrong / num_all
