"""Rows that are token ids already → an `Example`. Nothing is rendered, so the chat template is not involved.

    input_ids        5    8    9    2    0        labels: -100 where a token is not learned, else the token itself
    labels        -100 -100    9    2 -100        loss_mask: 1 where a token is learned
    attention_mask   1    1    1    1    0        0 at padding, which is left out
    → input_ids      5    8    9    2,  loss_mask 0 0 1 1

The first token is never learned. The ids are checked against the vocabulary where the tokenizer is known.
"""

from typing import Any

import numpy as np

from sft.data.formats.columns import Columns, column_of
from sft.data.formats.text_fields import kind_of
from sft.errors import RecordError
from sft.schema import BoolArray, Example, IntArray, JsonObject

IGNORED = -100
"""The label of a token that is not learned, as in torch's cross entropy."""


def read_token_row(fields: JsonObject, columns: Columns) -> Example:
    """The example that the row's ids form.

    Raises:
        RecordError: a field is not a list of ids or marks of the same length, or nothing is learned.
    """
    input_ids = _read_integers(fields, column_of(columns, "input_ids"))
    learned = _read_learned(fields, columns, input_ids)
    attended = _read_marks(fields, column_of(columns, "attention_mask"), input_ids)
    if attended is not None:
        input_ids, learned = input_ids[attended], learned[attended]
    if len(input_ids) < 2:
        raise RecordError(f"the row has {len(input_ids)} tokens; needed: at least 2")
    if (input_ids < 0).any():
        place = int(np.argmax(input_ids < 0))
        raise RecordError(f"the id {input_ids[place]} at token {place + 1} is negative")
    learned[0] = False  # no token comes before it to predict it from
    if not learned.any():
        raise RecordError("no token of the row is to be learned")
    return Example(input_ids, learned)


def _read_learned(fields: JsonObject, columns: Columns, input_ids: IntArray) -> BoolArray:
    """Which tokens are learned, according to the labels or the mask."""
    column = column_of(columns, "labels")
    learned = _read_marks(fields, column_of(columns, "loss_mask"), input_ids)
    if fields.get(column) is None:
        if learned is None:
            raise RecordError(f"the fields {column!r} and {column_of(columns, 'loss_mask')!r} are both missing")
        return learned
    labels = _read_integers(fields, column)
    _check_length(labels, column, input_ids)
    labelled: BoolArray = labels != IGNORED
    other = labelled & (labels != input_ids)
    if other.any():
        place = int(np.argmax(other))
        raise RecordError(
            f"the label of token {place + 1} is {labels[place]}, not its id {input_ids[place]}; "
            f"needed: labels that are not shifted, {IGNORED} where a token is not learned"
        )
    if learned is not None and not np.array_equal(labelled, learned):
        raise RecordError(f"the fields {column!r} and {column_of(columns, 'loss_mask')!r} mark different tokens")
    return labelled


def _read_marks(fields: JsonObject, column: str, input_ids: IntArray) -> BoolArray | None:
    """0 and 1, or false and true; None where the field is missing or null."""
    if fields.get(column) is None:
        return None
    marks = _read_integers(fields, column, (int, bool))
    _check_length(marks, column, input_ids)
    if ((marks != 0) & (marks != 1)).any():
        raise RecordError(f"the field {column!r} holds other numbers than 0 and 1")
    chosen: BoolArray = marks == 1
    return chosen


def _read_integers(fields: JsonObject, column: str, kinds: tuple[type, ...] = (int,)) -> IntArray:
    if column not in fields:
        raise RecordError(f"the field {column!r} is missing")
    values: Any = fields[column]
    if not isinstance(values, list):
        raise RecordError(f"the field {column!r} holds {kind_of(values)}, not a list of integers")
    if not set(map(type, values)) <= set(kinds):
        place, value = next((i, v) for i, v in enumerate(values, start=1) if type(v) not in kinds)
        raise RecordError(f"the field {column!r} holds {kind_of(value)} at place {place}, not an integer")
    try:
        return np.array(values, dtype=np.int64)
    except OverflowError:
        raise RecordError(f"the field {column!r} holds a number that is not a token id") from None


def _check_length(values: IntArray, column: str, input_ids: IntArray) -> None:
    if len(values) != len(input_ids):
        raise RecordError(f"the field {column!r} has {len(values)} values for {len(input_ids)} tokens")
