"""Shares add up, limits hold, and every stretch of the order has its share of each task."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sft.config import MixtureConfig
from sft.data.planning.mixture import TaskSupply, add_replay, allot, draw, mixing_rates, raise_to_least

SIZES = st.dictionaries(st.sampled_from("abcdefgh"), st.integers(1, 10**7), min_size=1)
SHARES = st.dictionaries(st.sampled_from("abcdefgh"), st.floats(0.01, 1.0), min_size=1).map(
    lambda raw: {task: share / sum(raw.values()) for task, share in raw.items()}
)


def supplies_of(sizes, units_per_example=1):
    """Tasks of so many examples each; ids are not shared."""
    supplies, at = {}, 0
    for task, size in sizes.items():
        ids = np.arange(at, at + size)
        supplies[task] = TaskSupply(ids, np.full(size, units_per_example), size * units_per_example, 0, 0)
        at += size
    return supplies


def uneven_supplies_of(sizes, seed):
    """The same with examples of very different sizes; and the units by id."""
    rng = np.random.default_rng(seed)
    units = np.clip(rng.lognormal(3.0, 1.5, sum(sizes.values())), 1, 2000).astype(np.int32)
    supplies = {
        task: TaskSupply(s.example_ids, units[s.example_ids], int(units[s.example_ids].sum()), 0, 0)
        for task, s in supplies_of(sizes).items()
    }
    return supplies, units


def drawn_of(order, supply):
    return order[np.isin(order, supply.example_ids)]


@given(SIZES, st.floats(1.0, 50.0), st.integers(1, 10**6) | st.none())
def test_rates_add_up_to_one(sizes, temperature, cap):
    for mixture in (
        MixtureConfig(rates="natural", cap=cap),
        MixtureConfig(rates="equal", cap=cap),
        MixtureConfig(rates="temperature", temperature=temperature, cap=cap),
        MixtureConfig(rates="weights", weights={task: size / 3 for task, size in sizes.items()}),
    ):
        rates = mixing_rates(mixture, sizes)
        assert rates.keys() == sizes.keys()
        assert sum(rates.values()) == pytest.approx(1)


@given(SIZES)
def test_natural_and_equal_rates(sizes):
    total = sum(sizes.values())
    assert mixing_rates(MixtureConfig(), sizes) == pytest.approx({t: size / total for t, size in sizes.items()})
    assert mixing_rates(MixtureConfig(rates="equal"), sizes) == pytest.approx({t: 1 / len(sizes) for t in sizes})


@given(SIZES, st.floats(1.0, 20.0))
def test_temperature_lies_between_natural_and_equal(sizes, temperature):
    def rates(value):
        return mixing_rates(MixtureConfig(rates="temperature", temperature=value), sizes)

    assert rates(1.0) == pytest.approx(mixing_rates(MixtureConfig(), sizes))
    assert rates(1e9) == pytest.approx(mixing_rates(MixtureConfig(rates="equal"), sizes))
    # T5's formula: two tasks whose sizes have the ratio r are drawn with the ratio r ** (1 / temperature).
    first, *others = sizes
    for other in others:
        ratio = rates(temperature)[first] / rates(temperature)[other]
        assert ratio == pytest.approx((sizes[first] / sizes[other]) ** (1 / temperature))


def test_weights_need_not_add_up_and_name_the_tasks():
    mixture = MixtureConfig(rates="weights", weights={"a": 3, "b": 1})
    assert mixing_rates(mixture, {"a": 5, "b": 500}) == {"a": 0.75, "b": 0.25}


@given(SIZES, st.integers(1, 10**7))
def test_a_capped_task_counts_for_the_cap(sizes, cap):
    capped = {task: min(size, cap) for task, size in sizes.items()}
    for rule in ({"rates": "natural"}, {"rates": "temperature", "temperature": 2.0}):
        assert mixing_rates(MixtureConfig(cap=cap, **rule), sizes) == mixing_rates(MixtureConfig(**rule), capped)


@given(SHARES, st.floats(0.0, 1.0))
def test_no_rate_is_below_the_least_and_the_others_keep_their_proportions(rates, part):
    least = part / len(rates)
    raised = raise_to_least(rates, least)
    assert raised.keys() == rates.keys()
    assert sum(raised.values()) == pytest.approx(1)
    assert min(raised.values()) >= least * (1 - 1e-9)
    above = {task: raised[task] / rates[task] for task in rates if raised[task] > least * (1 + 1e-9)}
    if above:
        scale = max(above.values())
        assert min(above.values()) == pytest.approx(scale)
        assert scale <= 1 + 1e-9
        # Raised is what would be too small: nothing is taken from the others without need.
        assert all(rates[task] * scale <= least * (1 + 1e-9) for task in rates.keys() - above.keys())


def test_a_least_share_raises_the_small_tasks_only():
    rates = mixing_rates(MixtureConfig(min_share=0.1), {"large": 900, "middle": 90, "small": 9, "tiny": 1})
    assert rates == pytest.approx({"large": 0.7, "middle": 0.1, "small": 0.1, "tiny": 0.1})


@given(SHARES, st.lists(st.tuples(st.floats(0.01, 0.3), SHARES), max_size=3))
def test_replay_takes_its_share_and_leaves_the_rest(own, earlier):
    rates = add_replay(own, earlier)
    assert sum(rates.values()) == pytest.approx(1)
    left = 1 - sum(share for share, _ in earlier)
    for task, rate in rates.items():
        replayed = sum(share * rates.get(task, 0) for share, rates in earlier)
        assert rate == pytest.approx(left * own.get(task, 0) + replayed)


LIMITS = st.floats(0.5, 2000) | st.just(math.inf)


@given(SHARES, st.floats(1, 1e4), st.data())
def test_allotments_keep_to_the_limits_and_add_up(rates, total, data):
    limits = {task: data.draw(LIMITS) for task in rates}
    allotted = allot(rates, total, limits)
    assert allotted.keys() == rates.keys()
    assert all(allotted[task] <= limits[task] for task in rates)
    assert sum(allotted.values()) == pytest.approx(min(total, sum(limits.values())))
    # Tasks below their limits keep the proportions of their rates, and no task at its limit got less than those.
    scales = {task: allotted[task] / rates[task] for task in rates}
    open_scales = [scales[task] for task in rates if allotted[task] < limits[task] * (1 - 1e-9)]
    if open_scales:
        assert min(open_scales) == pytest.approx(max(open_scales))
        assert all(scale <= max(open_scales) * (1 + 1e-9) for scale in scales.values())


TASK_SIZES = st.dictionaries(st.sampled_from("abcdefgh"), st.integers(1, 40), min_size=1)


@given(TASK_SIZES, st.data(), st.integers(0, 2**32), st.integers(1, 5))
def test_a_task_is_drawn_as_often_as_it_was_allotted(sizes, data, seed, units_per_example):
    supplies = supplies_of(sizes, units_per_example)
    allotted = {task: data.draw(st.floats(0.1, 200)) for task in sizes}
    order = draw(supplies, allotted, seed)
    for task, supply in supplies.items():
        # To the nearest whole number; in the middle, either.
        num_drawn = len(drawn_of(order, supply))
        assert abs(num_drawn - max(1.0, allotted[task] / units_per_example)) <= 0.5 + 1e-9


@given(TASK_SIZES, st.integers(0, 2**32))
def test_one_epoch_draws_every_example_exactly_once(sizes, seed):
    order = draw(supplies_of(sizes, 7), {task: size * 7.0 for task, size in sizes.items()}, seed)
    assert sorted(order.tolist()) == list(range(sum(sizes.values())))


@given(TASK_SIZES, st.data(), st.integers(0, 2**32))
def test_no_example_comes_again_before_all_others_of_its_task(sizes, data, seed):
    supplies = supplies_of(sizes)
    order = draw(supplies, {task: data.draw(st.floats(0.1, 200)) for task in sizes}, seed)
    for task, supply in supplies.items():
        drawn = drawn_of(order, supply).tolist()
        for start in range(0, len(drawn), sizes[task]):
            part = drawn[start : start + sizes[task]]
            assert len(set(part)) == len(part)
        # The same order in every round, so repeats are as far apart as they can be.
        assert drawn[sizes[task] :] == drawn[: -sizes[task]] or len(drawn) <= sizes[task]


@given(TASK_SIZES, st.data(), st.integers(0, 2**32))
def test_a_task_gets_the_units_that_it_was_allotted_to_within_half_an_example(sizes, data, seed):
    supplies, units = uneven_supplies_of(sizes, seed)
    allotted = {task: data.draw(st.floats(0.01, 5.0)) * supplies[task].units for task in sizes}
    order = draw(supplies, allotted, seed)
    for task, supply in supplies.items():
        drawn = drawn_of(order, supply)
        surplus = units[drawn].sum() - allotted[task]
        assert abs(surplus) <= supply.example_units.max() / 2 or (len(drawn) == 1 and surplus > 0)


@given(TASK_SIZES, st.sampled_from([1, 2, 7]), st.integers(0, 2**32))
def test_whole_epochs_draw_every_example_as_often(sizes, epochs, seed):
    supplies, _ = uneven_supplies_of(sizes, seed)
    order = draw(supplies, {task: float(epochs * supply.units) for task, supply in supplies.items()}, seed)
    assert np.bincount(order, minlength=sum(sizes.values())).tolist() == [epochs] * sum(sizes.values())


# What holds is stated in `draw`; with examples of one unit it is 1 + share * (T - 2) for T tasks.
@given(TASK_SIZES, st.data(), st.integers(0, 2**32), st.booleans())
def test_every_stretch_of_the_order_has_its_share_of_each_task(sizes, data, seed, uneven):
    supplies, units = uneven_supplies_of(sizes, seed) if uneven else (supplies_of(sizes), np.ones(400))
    order = draw(supplies, {task: data.draw(st.floats(0.02, 5.0)) * s.units for task, s in supplies.items()}, seed)
    largest = {task: units[drawn_of(order, supply)].max() for task, supply in supplies.items()}
    for task, supply in supplies.items():
        of_task = np.where(np.isin(order, supply.example_ids), units[order], 0)
        share = of_task.sum() / units[order].sum()
        surplus = np.concatenate([[0], np.cumsum(of_task - share * units[order])])
        bound = (1 - share) * largest[task] + share * sum(most for other, most in largest.items() if other != task)
        # The surplus of a stretch is that at its end less that at its start: this is the largest of all stretches.
        assert surplus.max() - surplus.min() <= bound + 1e-6


@given(TASK_SIZES, st.data(), st.integers(0, 2**32))
def test_a_tasks_own_order_does_not_depend_on_the_other_tasks(sizes, data, seed):
    supplies = supplies_of(sizes)
    allotted = {task: data.draw(st.floats(0.1, 200)) for task in sizes}
    order = draw(supplies, allotted, seed)
    for task, supply in supplies.items():
        alone = draw({task: supply}, {task: allotted[task]}, seed)
        assert alone.tolist() == drawn_of(order, supply).tolist()


def test_the_order_is_a_function_of_the_seed():
    supplies = supplies_of({"a": 50, "b": 20})
    allotted = {"a": 50.0, "b": 60.0}
    first, again, other = (draw(supplies, allotted, seed).tolist() for seed in (1, 1, 2))
    assert first == again
    assert first != other
