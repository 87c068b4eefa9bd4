"""What is shown is what was asked for, the same for a seed; where there is none, the message says what there is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sft.errors import UserError
from sft.inspection.selection import Wanted, choose_rows
from tests.inspection.stored import named_store

ROWS = [
    (task, source, 10 * (i + 1)) for i in range(8) for task, source in (("copy", "a"), ("sort", "a"), ("sort", "b"))
]
STORE = named_store(ROWS)

limits = st.none() | st.integers(1, 100)


@given(
    task=st.sampled_from([None, "copy", "sort"]),
    source=st.sampled_from([None, "a", "b"]),
    least=limits,
    most=limits,
    num_rows=st.integers(1, 30),
    seed=st.integers(0, 3),
)
def test_the_rows_are_as_wanted_and_the_same_for_a_seed(task, source, least, most, num_rows, seed):
    matching = [
        i
        for i, row in enumerate(ROWS)
        if task in (None, row[0]) and source in (None, row[1]) and (least or 0) <= row[2] <= (most or 1000)
    ]
    wanted = Wanted(task, source, least, most)
    if not matching:
        with pytest.raises(UserError, match="no example in the store matches"):
            choose_rows(STORE, wanted, num_rows, seed)
        return
    rows = choose_rows(STORE, wanted, num_rows, seed).tolist()
    assert len(rows) == min(num_rows, len(matching))
    assert set(rows) <= set(matching)
    assert rows == sorted(set(rows)) == choose_rows(STORE, wanted, num_rows, seed).tolist()


def test_another_seed_shows_other_rows():
    chosen = {tuple(choose_rows(STORE, Wanted(), 3, seed).tolist()) for seed in range(5)}
    assert len(chosen) > 1


def test_a_row_is_chosen_by_its_number():
    assert choose_rows(STORE, Wanted(row=7), 3, seed=0).tolist() == [7]


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (Wanted(task="sorted"), ["--task sorted", "Did you mean 'sort'?", "copy, sort"]),
        (Wanted(source="web"), ["--source web", "The sources there: a, b."]),
        (Wanted(min_tokens=500), ["--min-tokens 500", "have 10 to 80 tokens"]),
        (Wanted(task="copy", max_tokens=3), ["--task copy --max-tokens 3", "The 8 without the limits"]),
        (Wanted(task="copy", source="b"), ["--task copy --source b", "The tasks of source b: sort."]),
        (Wanted(row=24), ["--row 24", "rows 0 to 23"]),
        (Wanted(row=0, task="sort"), ["--task sort --row 0", "Row 0 is of task copy and source a."]),
    ],
)
def test_where_there_is_none_the_message_says_what_there_is(wanted, words):
    with pytest.raises(UserError) as error:
        choose_rows(STORE, wanted, 3, seed=0)
    for text in words:
        assert text in str(error.value)
