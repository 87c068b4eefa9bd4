"""Packs partition the order, are full, and keep to the order."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sft.data.packing import WINDOW_PACKS, pack_order

CASES = st.integers(1, 64).flatmap(
    lambda length: st.tuples(st.just(length), st.lists(st.integers(1, length), max_size=300))
)


def packs_of(lengths, pack_len_tokens, seed=0):
    positions, starts = pack_order(np.asarray(lengths, dtype=np.int64), pack_len_tokens, seed)
    return [positions[start:stop].tolist() for start, stop in zip(starts[:-1], starts[1:], strict=True)]


def first_fit_decreasing(lengths, pack_len_tokens):
    """The textbook's: each, from the longest on, into the first pack that has room."""
    packs = []
    for length in sorted(lengths, reverse=True):
        for pack in packs:
            if sum(pack) + length <= pack_len_tokens:
                pack.append(length)
                break
        else:
            packs.append([length])
    return packs


def dolly_lengths(count, seed, max_len_tokens=2048):
    """Log-normal with the median 120 and a long tail, cut at the longest example that is kept."""
    lengths = np.random.default_rng(seed).lognormal(np.log(120), 1.0, count).astype(np.int64)
    return np.clip(lengths, 8, max_len_tokens)


@given(CASES, st.integers(0, 2**32))
def test_packs_partition_the_order_and_none_is_too_long(case, seed):
    length, lengths = case
    packs = packs_of(lengths, length, seed)
    assert sorted(i for pack in packs for i in pack) == list(range(len(lengths)))
    assert all(pack and sum(lengths[i] for i in pack) <= length for pack in packs)


@given(CASES, st.integers(0, 2**32))
def test_a_window_is_packed_as_by_textbook_first_fit_decreasing(case, seed):
    length, lengths = case
    # What fills less than a window's packs is one window.
    lengths = lengths[: WINDOW_PACKS // 2]
    packs = [sorted((lengths[i] for i in pack), reverse=True) for pack in packs_of(lengths, length, seed)]
    assert sorted(packs) == sorted(first_fit_decreasing(lengths, length))


@pytest.mark.parametrize("pack_len_tokens", [2048, 4096])
def test_packs_are_full_on_lengths_as_those_of_dolly(pack_len_tokens):
    lengths = dolly_lengths(15_000, seed=1)
    assert lengths.sum() / (len(packs_of(lengths, pack_len_tokens)) * pack_len_tokens) >= 0.99


def test_what_a_window_leaves_half_empty_is_filled_by_the_next():
    lengths = np.random.default_rng(2).integers(8, 2048, 4000)
    ends = np.cumsum(lengths)
    cuts = np.searchsorted(ends, np.arange(1, ends[-1] / (WINDOW_PACKS * 2048)) * WINDOW_PACKS * 2048)
    apart = sum(len(first_fit_decreasing(window, 2048)) for window in np.split(lengths, cuts))
    assert len(packs_of(lengths, 2048)) < 0.995 * apart


LENGTHS = {
    "of Dolly": dolly_lengths(30_000, seed=2),
    "that never fill a pack": np.full(3000, 1300),
    "that hardly fit together": np.random.default_rng(3).integers(700, 2048, 4000),
}


@pytest.mark.parametrize("kind", LENGTHS)
def test_an_example_stays_within_two_windows_of_its_place(kind):
    lengths, length = LENGTHS[kind], 2048
    assert lengths.sum() > 6 * WINDOW_PACKS * length
    positions, _ = pack_order(lengths, length, seed=5)
    before = np.cumsum(lengths) - lengths
    packed_before = np.empty_like(before)
    packed_before[positions] = np.cumsum(lengths[positions]) - lengths[positions]
    # In tokens, so that it holds however full the packs are.
    assert np.abs(packed_before - before).max() <= 2 * WINDOW_PACKS * length


def test_the_packs_of_a_window_come_in_no_order_of_fullness():
    lengths = np.random.default_rng(4).integers(700, 2048, 200)
    filled = [int(lengths[pack].sum()) for pack in packs_of(lengths, 2048)]
    assert filled != sorted(filled, reverse=True)
    assert packs_of(lengths, 2048, seed=1) != packs_of(lengths, 2048, seed=2)


def test_packing_is_a_function_of_lengths_and_seed():
    lengths = dolly_lengths(3000, seed=3)
    assert packs_of(lengths, 2048, seed=7) == packs_of(lengths.copy(), 2048, seed=7)


def test_nothing_gives_no_packs():
    positions, starts = pack_order(np.empty(0, np.int64), 8, seed=0)
    assert positions.tolist() == []
    assert starts.tolist() == [0]
