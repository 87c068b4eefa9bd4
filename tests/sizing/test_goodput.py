"""The shares of time are those of a simulation that goes from event to event; the best interval is the best."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sft.sizing.goodput import FailureCosts, best_interval, share_time

_NUM_FAILURES = 1500


def simulate(interval: float, costs: FailureCosts, seed: int) -> list[float]:
    """The shares of one run, event by event: what the job does, and not what follows from it on average."""
    random = np.random.default_rng(seed)
    gaps = iter(random.exponential(costs.between_failures, 20 * _NUM_FAILURES).tolist())
    now, next_failure = 0.0, next(gaps)
    training = saving = again = restarting = 0.0
    for _ in range(_NUM_FAILURES):
        # Of this start: what was trained and waited for since the newest whole checkpoint, and the one being written.
        trained = waited = 0.0
        writing_until, held = math.inf, (0.0, 0.0)
        is_up = True
        while is_up:
            # In the order of a job: train, wait for the writing before, copy, write.
            for kind, seconds in (("train", interval), ("wait", 0.0), ("copy", costs.stall)):
                until = now + seconds
                if kind == "wait" and writing_until < math.inf:
                    until = max(now, writing_until)
                if writing_until <= until and writing_until < next_failure:
                    training, saving = training + held[0], saving + held[1]
                    trained, waited = trained - held[0], waited - held[1]
                    writing_until = math.inf
                until_or_failure = min(until, next_failure)
                spent, now = until_or_failure - now, until_or_failure
                trained, waited = (trained + spent, waited) if kind == "train" else (trained, waited + spent)
                if now == next_failure:
                    is_up = False
                    break
            else:
                writing_until, held = now + costs.writing, (trained, waited)
                if costs.writing == 0:
                    training, saving = training + trained, saving + waited
                    trained = waited = 0.0
                    writing_until = math.inf
        again += trained + waited
        # The restart, which fails as often as a failure comes before its end.
        while (until := now + costs.restart) > (next_failure := now + next(gaps)):
            restarting, now = restarting + next_failure - now, next_failure
        restarting, now = restarting + costs.restart, until
    return [seconds / now for seconds in (training, saving, again, restarting)]


@st.composite
def _costs(draw: st.DrawFn) -> tuple[float, FailureCosts]:
    part = st.floats(0.001, 0.8)
    mean = draw(st.floats(1.0, 1e5))
    stall = draw(st.sampled_from([0.0, 1.0])) * draw(part)
    costs = FailureCosts(mean, mean * draw(part), mean * stall, mean * draw(st.sampled_from([0.0, 0.05, 0.5, 1.0])))
    return mean * draw(st.floats(0.01, 1.5)), costs


@given(_costs(), st.integers(0, 2**32 - 1))
@settings(max_examples=25)
def test_the_shares_are_those_of_a_simulation_from_event_to_event(case: tuple[float, FailureCosts], seed: int) -> None:
    interval, costs = case
    # Exponential gaps, so many of them, are off by 1 / sqrt(1500), 2.6 %, of their mean; a part of the time by less.
    assert simulate(interval, costs, seed) == pytest.approx(list(share_time(interval, costs)), abs=0.03)


@given(_costs())
def test_the_shares_are_all_of_the_time(case: tuple[float, FailureCosts]) -> None:
    interval, costs = case
    shares = share_time(interval, costs)
    assert sum(shares) == pytest.approx(1.0)
    assert min(shares) >= 0.0


@given(_costs(), st.floats(0.05, 20.0))
def test_no_other_interval_trains_noticeably_more_than_the_best(
    case: tuple[float, FailureCosts], factor: float
) -> None:
    _, costs = case
    if costs.stall == 0.0 and costs.writing == 0.0:
        return  # then the shorter the better
    best = best_interval(costs)
    most = share_time(best, costs).training
    # Daly's estimate is a series; where a save takes as long as nodes live it is off by a little.
    assert share_time(best * factor, costs).training <= most * 1.01


def test_rare_failures_give_youngs_interval() -> None:
    costs = FailureCosts(between_failures=1e6, restart=100.0, stall=1.0, writing=0.0)
    assert best_interval(costs) == pytest.approx(math.sqrt(2 * 1.0 * 1e6), rel=0.002)


def test_a_save_beside_the_training_costs_less_than_one_that_is_waited_for() -> None:
    waited, beside = FailureCosts(3e5, 100, 60, 0), FailureCosts(3e5, 100, 1, 60)
    intervals = [best_interval(costs) for costs in (waited, beside)]
    shares = [share_time(interval, costs) for interval, costs in zip(intervals, (waited, beside), strict=True)]
    assert shares[0].training < shares[1].training


def test_what_fails_all_the_time_trains_nothing_and_is_no_error() -> None:
    costs = FailureCosts(between_failures=1.0, restart=2000.0, stall=50.0, writing=900.0)
    shares = share_time(best_interval(costs), costs)
    assert shares.training == 0.0
    assert shares.restarting == pytest.approx(1.0)
