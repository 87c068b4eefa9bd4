"""Examples of like length share batches: each is in one of them, and no batch takes more slots than there are."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sft.row_plan import row_batches, row_cost

LENGTHS = st.lists(st.integers(1, 40), max_size=30).map(lambda lengths: np.array(lengths, dtype=np.int64))


@given(LENGTHS, st.integers(40, 200))
def test_each_example_is_in_one_batch_that_fits(lengths: np.ndarray, max_slots: int) -> None:
    batches = list(row_batches(lengths, max_slots))
    assert sorted(int(i) for rows in batches for i in rows) == list(range(len(lengths)))
    for rows in batches:
        assert len(rows) * lengths[rows].max() <= max_slots


@given(LENGTHS, st.integers(40, 200))
def test_no_batch_could_have_taken_a_row_of_the_next(lengths: np.ndarray, max_slots: int) -> None:
    batches = list(row_batches(lengths, max_slots))
    for rows in batches[:-1]:
        assert (len(rows) + 1) * lengths[rows[0]] > max_slots


@given(st.lists(st.lists(LENGTHS, max_size=3), min_size=1, max_size=4), st.integers(40, 200))
def test_the_cost_is_that_of_the_batches(ranks: list[list[np.ndarray]], max_slots: int) -> None:
    cost = row_cost(ranks, max_slots)
    per_rank = [[rows for lengths in groups for rows in row_batches(lengths, max_slots)] for groups in ranks]
    assert cost.num_batches == max(map(len, per_rank))
    assert cost.num_slots >= sum(int(lengths.sum()) for groups in ranks for lengths in groups)


def test_equal_examples_are_laid_without_padding() -> None:
    assert row_cost([[np.full(12, 10)]], 40) == (3, 120)
