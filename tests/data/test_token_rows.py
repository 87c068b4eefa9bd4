"""Rows of token ids become examples as they are, without padding, or the reason why they cannot."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.data.records import formatted, reason

IDS = st.lists(st.tuples(st.integers(0, 300), st.booleans()), min_size=2, max_size=30)


def example(**fields):
    return formatted("tokens", fields)[0].example


@given(IDS, st.integers(0, 4), st.integers(0, 4))
def test_labels_and_masks_say_the_same_and_padding_is_left_out(row, left, right):
    ids, learned = [i for i, _ in row], [mark for _, mark in row]
    if not any(learned[1:]):
        assert reason("tokens", {"input_ids": ids, "loss_mask": learned}) == "no token of the row is to be learned"
        return
    labels = [i if mark else -100 for i, mark in row]
    padded = {
        "input_ids": [0] * left + ids + [0] * right,
        "labels": [-100] * left + labels + [-100] * right,
        "attention_mask": [0] * left + [1] * len(ids) + [0] * right,
    }
    for fields in (
        {"input_ids": ids, "labels": labels},
        {"input_ids": ids, "loss_mask": learned},
        {"input_ids": ids, "loss_mask": [int(mark) for mark in learned], "labels": None},
        {"input_ids": ids, "loss_mask": learned, "labels": labels},
        padded,
    ):
        made = example(**fields)
        assert made.input_ids.tolist() == ids
        assert made.input_ids.dtype == "int64"
        assert made.loss_mask.tolist() == [False, *learned[1:]]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, "the field 'input_ids' is missing"),
        ({"input_ids": "5 8"}, "the field 'input_ids' holds text, not a list of integers"),
        ({"input_ids": [5, "8"]}, "the field 'input_ids' holds text at place 2, not an integer"),
        ({"input_ids": [5, True]}, "the field 'input_ids' holds a boolean at place 2, not an integer"),
        ({"input_ids": [5, 2**64]}, "the field 'input_ids' holds a number that is not a token id"),
        ({"input_ids": [5, 8]}, "the fields 'labels' and 'loss_mask' are both missing"),
        ({"input_ids": [5, -8], "loss_mask": [0, 1]}, "the id -8 at token 2 is negative"),
        ({"input_ids": [5], "loss_mask": [1]}, "the row has 1 tokens; needed: at least 2"),
        ({"input_ids": [5, 8], "loss_mask": [1, 0]}, "no token of the row is to be learned"),
        ({"input_ids": [5, 8], "loss_mask": [1]}, "the field 'loss_mask' has 1 values for 2 tokens"),
        ({"input_ids": [5, 8], "loss_mask": [0, 2]}, "the field 'loss_mask' holds other numbers than 0 and 1"),
        ({"input_ids": [5, 8], "loss_mask": [0, None]}, "the field 'loss_mask' holds null at place 2, not an integer"),
        ({"input_ids": [5, 8], "labels": [8, -100, 1]}, "the field 'labels' has 3 values for 2 tokens"),
        (
            {"input_ids": [5, 8], "labels": [8, -100]},
            "the label of token 1 is 8, not its id 5; "
            "needed: labels that are not shifted, -100 where a token is not learned",
        ),
        (
            {"input_ids": [5, 8], "labels": [-100, 8], "loss_mask": [0, 0]},
            "the fields 'labels' and 'loss_mask' mark different tokens",
        ),
        (
            {"input_ids": [5, 8], "loss_mask": [0, 1], "attention_mask": [0, 1]},
            "the row has 1 tokens; needed: at least 2",
        ),
    ],
)
def test_a_row_that_is_no_example_is_named(fields, expected):
    assert reason("tokens", fields) == expected
