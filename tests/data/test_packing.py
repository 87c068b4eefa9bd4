"""Packs partition the order, are full, keep to the order, and hold no example again while others are left."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sft.data.planning.first_fit import fill_packs
from sft.data.planning.mixture import TaskSupply, draw
from sft.data.planning.packing import next_draws, pack_order

CASES = st.integers(1, 64).flatmap(
    lambda length: st.tuples(st.just(length), st.lists(st.integers(1, length), max_size=300), st.integers(1, 64))
)


def packs_of(lengths, pack_len_tokens, packs_per_step, seed=0, examples=None, tasks=None):
    lengths = np.asarray(lengths, dtype=np.int64)
    examples = np.arange(len(lengths)) if examples is None else examples
    tasks = np.zeros(len(lengths), np.int64) if tasks is None else tasks
    positions, starts = pack_order(lengths, examples, tasks, pack_len_tokens, packs_per_step, seed)
    return [positions[start:stop].tolist() for start, stop in zip(starts[:-1], starts[1:], strict=True)]


def steps_of(packs, packs_per_step):
    return [packs[i : i + packs_per_step] for i in range(0, len(packs), packs_per_step)]


OF_ORDERS = settings(max_examples=settings.default.max_examples // 2)
"""An order has hundreds of examples."""


@st.composite
def orders(draw_from):
    """Of tasks with one example to many, drawn from a part of an epoch to hundreds; lengths go with the examples."""
    rng = np.random.default_rng(draw_from(st.integers(0, 2**32)))
    pack_len_tokens = draw_from(st.sampled_from([8, 64, 256]))
    sizes = draw_from(st.lists(st.sampled_from([1, 2, 3, 7, 40, 400]), min_size=1, max_size=5))
    supplies, allotted, at = {}, {}, 0
    for i, size in enumerate(sizes):
        supplies[f"t{i}"] = TaskSupply(np.arange(at, at + size), np.ones(size, np.int64), size, 0, 0)
        allotted[f"t{i}"] = draw_from(st.sampled_from([1, 5, 50, 300, 700]))
        at += size
    kind = draw_from(st.sampled_from(["log-normal", "uniform", "all the same", "hardly fitting"]))
    lengths = {
        "log-normal": rng.lognormal(np.log(pack_len_tokens / 8), 1.0, at),
        "uniform": rng.integers(1, pack_len_tokens + 1, at),
        "all the same": np.full(at, rng.integers(1, pack_len_tokens + 1)),
        "hardly fitting": rng.integers(pack_len_tokens // 3, pack_len_tokens, at),
    }[kind]
    lengths = np.clip(lengths, 1, pack_len_tokens).astype(np.int64)
    examples = draw(supplies, allotted, seed=1)
    tasks = np.searchsorted(np.cumsum(sizes), examples, side="right")
    return examples, tasks, lengths[examples], pack_len_tokens


def first_fit_decreasing(lengths, pack_len_tokens):
    """The textbook's: each, from the longest on, into the first pack that has room."""
    packs, room = [], []
    for length in sorted(lengths, reverse=True):
        first = next((i for i, left in enumerate(room) if left >= length), len(packs))
        if first == len(packs):
            packs.append([])
            room.append(pack_len_tokens)
        packs[first].append(length)
        room[first] -= length
    return packs


def dolly_lengths(count, seed, max_len_tokens=2048):
    """Log-normal with the median 128 and a long tail, cut at the longest example that is kept."""
    lengths = np.random.default_rng(seed).lognormal(np.log(128), 1.0, count).astype(np.int64)
    return np.clip(lengths, 8, max_len_tokens)


@given(CASES, st.integers(0, 2**32))
def test_packs_partition_the_order_and_none_is_too_long(case, seed):
    length, lengths, packs_per_step = case
    packs = packs_of(lengths, length, packs_per_step, seed)
    assert sorted(i for pack in packs for i in pack) == list(range(len(lengths)))
    assert all(pack and sum(lengths[i] for i in pack) <= length for pack in packs)


@OF_ORDERS
@given(orders(), st.integers(1, 64))
def test_an_order_with_repeats_is_partitioned_too(order, packs_per_step):
    examples, tasks, lengths, length = order
    packs = packs_of(lengths, length, packs_per_step, 0, examples, tasks)
    assert sorted(i for pack in packs for i in pack) == list(range(len(lengths)))
    assert all(pack and lengths[pack].sum() <= length for pack in packs)


@OF_ORDERS
@given(orders(), st.integers(1, 64))
def test_no_step_holds_an_example_twice_while_others_of_its_task_are_left(order, packs_per_step):
    examples, tasks, lengths, length = order
    packs = packs_of(lengths, length, packs_per_step, 0, examples, tasks)
    drawn = {task: set(examples[tasks == task].tolist()) for task in set(tasks.tolist())}
    for step in steps_of(packs, packs_per_step):
        elements = [i for pack in step for i in pack]
        counts = Counter(examples[elements].tolist())
        for task in {int(tasks[i]) for i in elements if counts[int(examples[i])] > 1}:
            assert drawn[task] <= counts.keys()


@OF_ORDERS
@given(orders(), st.integers(1, 64))
def test_an_example_is_trained_in_its_own_step_or_in_the_next(order, packs_per_step):
    examples, tasks, lengths, length = order
    packs = packs_of(lengths, length, packs_per_step, 0, examples, tasks)
    ends = np.cumsum([0] + [sum(map(len, step)) for step in steps_of(packs, packs_per_step)])
    step_of = np.empty(len(lengths), np.int64)
    for i, step in enumerate(steps_of(packs, packs_per_step)):
        step_of[[element for pack in step for element in pack]] = i
    # All that lies before what a step trains was trained by the end of the next one.
    last_before = np.maximum.accumulate(step_of)
    assert (last_before - step_of).max() <= 1
    assert ends[-1] == len(lengths)


@OF_ORDERS
@given(orders())
def test_a_pack_takes_a_copy_of_what_it_holds_only_where_nothing_else_fits(order):
    examples, _, lengths, length = order
    packs, left = fill_packs(lengths.tolist(), len(lengths), length, len(lengths), examples.tolist())
    assert left == []
    for k, pack in enumerate(packs):
        held, space = set(), length
        behind = [i for later in packs[k:] for i in later]
        for place, i in enumerate(pack):
            if examples[i] in held:
                others = [j for j in behind if j not in pack[:place] and examples[j] not in held]
                assert all(lengths[j] > space for j in others)
            held.add(int(examples[i]))
            space -= lengths[i]


@given(CASES)
def test_what_one_step_holds_is_packed_as_by_textbook_first_fit_decreasing(case):
    length, lengths, _ = case
    packs = [sorted((lengths[i] for i in pack), reverse=True) for pack in packs_of(lengths, length, 300)]
    assert sorted(packs) == sorted(first_fit_decreasing(lengths, length))


@given(CASES, st.data())
def test_what_has_to_be_packed_is_packed_as_if_it_were_alone(case, data):
    length, lengths, num_packs = case
    num_musts = data.draw(st.integers(0, len(lengths)))
    packs, left = fill_packs(lengths, num_musts, length, num_packs)
    assert sorted([i for pack in packs for i in pack] + left) == list(range(len(lengths)))
    musts = [[lengths[i] for i in pack if i < num_musts] for pack in packs]
    alone = first_fit_decreasing(lengths[:num_musts], length)
    assert [pack for pack in musts if pack] == alone[:num_packs]
    # What the invariant of packing rests on: half of the packs' tokens always find room.
    if sum(lengths[:num_musts]) <= -(-num_packs // 2) * length or num_musts <= num_packs:
        assert all(i >= num_musts for i in left)


@pytest.mark.parametrize(
    ("packs_per_step", "pack_len_tokens", "least"),
    [(1, 2048, 0.98), (4, 2048, 0.99), (32, 2048, 0.995), (1, 4096, 0.99), (16, 4096, 0.995), (256, 4096, 0.995)],
)
def test_packs_are_full_on_lengths_as_those_of_dolly(packs_per_step, pack_len_tokens, least):
    lengths = dolly_lengths(20_000, seed=1)
    packs = packs_of(lengths, pack_len_tokens, packs_per_step)
    # Of the steps before the last: a stage ends where its examples do.
    whole = packs[: (len(packs) - 1) // packs_per_step * packs_per_step]
    assert sum(lengths[pack].sum() for pack in whole) / (len(whole) * pack_len_tokens) >= least


@pytest.mark.parametrize(("packs_per_step", "most"), [(1, 1.15), (8, 1.06), (64, 1.02)])
@pytest.mark.parametrize("kind", ["that never fill a pack", "that hardly fit together"])
def test_examples_need_few_more_packs_step_by_step_than_all_at_once(kind, packs_per_step, most):
    lengths = {
        "that never fill a pack": np.full(1500, 1300),
        "that hardly fit together": np.random.default_rng(3).integers(700, 2048, 2000),
    }[kind]
    packs = packs_of(lengths, 2048, packs_per_step)
    assert len(packs) <= most * len(first_fit_decreasing(lengths.tolist(), 2048)) + packs_per_step


def test_the_packs_of_a_step_come_in_no_order_of_fullness():
    lengths = np.random.default_rng(4).integers(700, 2048, 200)
    filled = [int(lengths[pack].sum()) for pack in packs_of(lengths, 2048, 300)]
    assert filled != sorted(filled, reverse=True)
    assert packs_of(lengths, 2048, 300, seed=1) != packs_of(lengths, 2048, 300, seed=2)


def test_packing_is_a_function_of_its_arguments():
    lengths = dolly_lengths(3000, seed=3)
    assert packs_of(lengths, 2048, 16, seed=7) == packs_of(lengths.copy(), 2048, 16, seed=7)


@given(st.lists(st.integers(0, 9), max_size=60))
def test_the_next_draw_is_where_an_example_comes_again(examples):
    following = next_draws(np.asarray(examples, dtype=np.int64))
    for i, example in enumerate(examples):
        rest = examples[i + 1 :]
        assert following[i] == i + 1 + rest.index(example) if example in rest else following[i] > len(examples)


def test_nothing_gives_no_packs():
    nothing = np.empty(0, np.int64)
    positions, starts = pack_order(nothing, nothing, nothing, 8, 4, seed=0)
    assert positions.tolist() == []
    assert starts.tolist() == [0]
