"""Which examples share a batch where each has a row of its own: pure arithmetic on their lengths.

lengths 9 2 5 3 8, 20 slots:   9 9 9 9 9 9 9 9 9 │ 5 5 5 5 5
                               8 8 8 8 8 8 8 8 - │ 3 3 3 - -
                                                 │ 2 2 - - -
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from sft.schema import IntArray


class RowCost(NamedTuple):
    """What a step costs in rows."""

    num_batches: int
    """Forward passes of every rank: those of the rank that has the most."""
    num_slots: int
    """Of all ranks, padding and all."""


def row_batches(lengths: IntArray, max_slots: int) -> Iterator[IntArray]:
    """The positions in `lengths` of each batch's examples, the longest first.

    A batch takes `rows * longest` slots, at most `max_slots`; a length is never more than that. Examples of like length
    lie together, so that little is padding.
    """
    order = np.argsort(-np.asarray(lengths, dtype=np.int64), kind="stable")
    start = 0
    while start < len(order):
        num_rows = max(1, max_slots // int(lengths[order[start]]))
        yield order[start : start + num_rows]
        start += num_rows


def row_cost(ranks: Sequence[Sequence[IntArray]], max_slots: int) -> RowCost:
    """The cost of a step: of each rank, the groups of examples that share batches, as their lengths."""
    slots = [
        [len(rows) * int(lengths[rows[0]]) for lengths in groups for rows in row_batches(lengths, max_slots)]
        for groups in ranks
    ]
    return RowCost(max(map(len, slots), default=0), sum(map(sum, slots)))
