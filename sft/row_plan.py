"""Which examples share a batch if each has its own row: pure arithmetic on their lengths.

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
    """Forward passes of each rank: as many as the rank with the most needs."""
    num_slots: int
    """Slots of all ranks, padding included."""


def row_batches(lengths: IntArray, max_slots: int) -> Iterator[IntArray]:
    """The positions in `lengths` of each batch's examples, the longest first.

    A batch takes `rows * longest` slots, at most `max_slots`; no length is larger than that. Examples of similar length
    are together, so that there is little padding.
    """
    order = np.argsort(-np.asarray(lengths, dtype=np.int64), kind="stable")
    start = 0
    while start < len(order):
        num_rows = max(1, max_slots // int(lengths[order[start]]))
        yield order[start : start + num_rows]
        start += num_rows


def row_cost(ranks: Sequence[Sequence[IntArray]], max_slots: int) -> RowCost:
    """The cost of a step. `ranks`: for each rank, its groups of examples that share batches, given by their lengths."""
    slots = [
        [len(rows) * int(lengths[rows[0]]) for lengths in groups for rows in row_batches(lengths, max_slots)]
        for groups in ranks
    ]
    return RowCost(max(map(len, slots), default=0), sum(map(sum, slots)))
