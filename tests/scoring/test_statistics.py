"""Intervals cover what is true, and say so where nothing can be seen."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sft.evaluation.score_texts import difference_text
from sft.scoring.statistics import (
    Scores,
    macro_interval,
    micro_interval,
    paired_difference,
    task_interval,
    task_weights,
    wilson,
)


def named(table: np.ndarray) -> Scores:
    return {f"t{row}": {str(question): float(x) for question, x in enumerate(xs)} for row, xs in enumerate(table)}


@pytest.mark.parametrize("num", [10, 50])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.98])
@pytest.mark.parametrize("num_tasks", [1, 4])
def test_intervals_of_shares_cover_the_truth(share, num, num_tasks):
    rng = np.random.default_rng(0)
    drawn = [macro_interval(named(rng.random((num_tasks, num)) < share), seed=seed) for seed in range(100)]
    assert np.mean([interval.low <= share <= interval.high for interval in drawn]) >= 0.9


@pytest.mark.parametrize(("a", "b"), [(2, 3), (20, 5), (0.3, 0.3)])
@pytest.mark.parametrize("num", [10, 50])
def test_intervals_of_other_scores_cover_the_truth(a, b, num):
    rng = np.random.default_rng(1)
    drawn = [task_interval(named(rng.beta(a, b, (1, num)))["t0"], seed=seed) for seed in range(100)]
    assert np.mean([interval.low <= a / (a + b) <= interval.high for interval in drawn]) >= 0.9


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_equal_models_seldom_seem_to_differ_and_unequal_ones_do(share):
    rng = np.random.default_rng(2)
    seen = {0.0: 0, 0.3: 0}
    for seed in range(100):
        luck = rng.random((2, 3, 60))
        for more in seen:
            first, second = named(luck[0] < share), named(luck[1] < share + more)
            seen[more] += paired_difference(first, second, by_task=True, seed=seed).is_seen
    assert seen[0.0] <= 0.1 * 100
    assert seen[0.3] >= 0.9 * 100


@given(st.integers(0, 30), st.integers(1, 30))
def test_wilson_is_that_of_scipy(num_yes, more):
    from scipy.stats import binomtest  # noqa: PLC0415  (most of a second, which each process of tests would take)

    num = num_yes + more - 1 or 1
    expected = binomtest(min(num_yes, num), num).proportion_ci(0.95, method="wilson")
    assert wilson(min(num_yes, num), num) == pytest.approx((expected.low, expected.high), abs=1e-12)


SCORES = st.dictionaries(
    st.sampled_from("abcd"),
    st.dictionaries(st.sampled_from("0123456"), st.sampled_from([0.0, 1.0]) | st.floats(0, 1), min_size=1),
    min_size=1,
)


@given(SCORES)
@settings(max_examples=25, deadline=None)
def test_an_interval_holds_its_mean_and_has_a_width_in_any_order(scores):
    means = [sum(task.values()) / len(task) for task in scores.values()]
    every = [x for task in scores.values() for x in task.values()]
    turned = {task: dict(reversed(scores[task].items())) for task in reversed(scores)}
    for interval, value in (
        (macro_interval(scores), sum(means) / len(means)),
        (micro_interval(scores), sum(every) / len(every)),
    ):
        assert interval.value == pytest.approx(value)
        assert 0 <= interval.low <= interval.value <= interval.high <= 1
        assert interval.low < interval.high
    assert macro_interval(turned) == macro_interval(scores)
    assert micro_interval(turned) == micro_interval(scores)


@given(SCORES, SCORES)
@settings(max_examples=25, deadline=None)
def test_a_difference_is_that_of_the_questions_both_answered(first, second):
    both = [(t, q) for t in first for q in first[t] if q in second.get(t, {})]
    difference = paired_difference(first, second)
    every = {(t, q) for scores in (first, second) for t in scores for q in scores[t]}
    assert (difference.num_pairs, difference.num_unpaired) == (len(both), len(every) - len(both))
    if both:
        assert difference.value == pytest.approx(np.mean([second[t][q] - first[t][q] for t, q in both]))
        assert -1 <= difference.low <= difference.value <= difference.high <= 1
    else:
        assert math.isnan(difference.value)


def test_equal_answers_are_no_proof_of_equal_models():
    scores = {"a": {str(question): 1.0 for question in range(20)}}
    difference = paired_difference(scores, scores)
    assert difference.low < 0 < difference.high
    assert not difference.is_seen
    assert "no difference can be seen at 20 examples" in str(difference)


def test_clusters_weigh_the_same_whatever_they_hold():
    scores = {"a": {"1": 0.0}, "b": {"1": 0.0}, "c": {"1": 1.0}, "d": {}}
    assert macro_interval(scores, {"x": ["a", "b", "d"]}).value == pytest.approx(1 / 2)
    assert task_weights(scores, {"x": ["a", "b"], "y": ["b", "c"]}) == pytest.approx([1 / 4, 1 / 2, 1 / 4])


def test_lengths_have_no_scale():
    interval = task_interval({str(n): float(n) for n in range(100)}, scale=None)
    half = 1.96 * np.std(range(100), ddof=1) / 10
    assert (interval.low, interval.high) == pytest.approx((49.5 - half, 49.5 + half), rel=0.05)
    for scores in ({"a": 6.0}, {"a": 6.0, "b": 6.0, "c": 6.0}):
        interval = task_interval(scores, scale=None)
        assert (interval.value, interval.low, interval.high) == (6.0, -math.inf, math.inf), "nothing says how far off"
        same = paired_difference({"t": scores}, {"t": scores}, scale=None)
        assert (same.value, same.is_seen) == (0.0, False)
        assert difference_text(same, is_share=False) == "0.0 ○"
    one = paired_difference({"t": {"a": 6.0}}, {"t": {"a": 9.0}}, scale=None)
    assert (one.value, one.is_seen) == (3.0, False)


def test_nothing_measured_has_no_mean():
    assert math.isnan(macro_interval({}).value)
    assert micro_interval({"a": {}}).num_examples == 0
