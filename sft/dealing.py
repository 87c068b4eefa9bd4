"""Deals the packs of a step to ranks and micro-batches by what they cost, so that ranks wait for each other least.

Under ZeRO-3 the ranks run every layer together. So a micro-batch takes as long as the dearest one that a rank has at
that time, and a step as long as the sum of these.

    costs 9 8 3 3 2 2 2 1, 2 ranks, 1 pack a micro-batch        costs 9 8 3 3 2 2 2 1, 2 ranks, 2 packs a micro-batch
        rank 0: 9 3 2 1                                             rank 0: 9+1  3+2
        rank 1: 8 3 2 2                                             rank 1: 8+2  3+2

First packs are put together into micro-batches of like cost: each pack, the dearest first, goes into the cheapest one
that has room (the longest-processing-time rule of Graham 1969). Then micro-batches are sorted, and those next to each
other run at the same time: no other pairing of the same micro-batches has a smaller sum of maxima. The dearest of them
goes to the rank that has the least so far.
"""

import heapq
from typing import NamedTuple

import numpy as np

from sft.schema import IntArray


class CostRates(NamedTuple):
    """What the forward pass costs, in floating-point operations (see `sft.sizing.flops`)."""

    token: int
    supervised_token: int
    squared_length: int
    """For each token of an example and each of its tokens: attention."""


def deal(costs: IntArray, world_size: int, packs_per_micro_batch: int) -> list[list[list[int]]]:
    """The packs of each micro-batch of each rank, as positions in `costs`, ascending in a micro-batch.

    All ranks have as many micro-batches as the packs need; some of the last may be empty. The result depends on the
    arguments alone.

    Args:
        costs: of each pack, (num_packs,), positive.
        world_size: number of ranks.
        packs_per_micro_batch: the most packs of a micro-batch.
    """
    num_rows = -(-len(costs) // (world_size * packs_per_micro_batch))
    micro_batches, sums = _micro_batches(costs, num_rows * world_size, packs_per_micro_batch)
    dearest_first = np.argsort(-sums, kind="stable").reshape(num_rows, world_size)
    totals = np.zeros(world_size, dtype=np.int64)
    ranks: list[list[list[int]]] = [[] for _ in range(world_size)]
    for row in dearest_first:
        cheapest_first = np.argsort(totals, kind="stable")
        totals[cheapest_first] += sums[row]
        for rank, place in zip(cheapest_first.tolist(), row.tolist(), strict=True):
            ranks[rank].append(sorted(micro_batches[place]))
    return ranks


def _micro_batches(costs: IntArray, num: int, most_packs: int) -> tuple[list[list[int]], IntArray]:
    """The packs of each micro-batch, and what they cost together: (num,)."""
    found: list[list[int]] = [[] for _ in range(num)]
    sums = [0] * num
    open_ones = [(0, place) for place in range(num)]  # a heap: the cost so far, and which
    dearest_first = np.argsort(-costs, kind="stable")
    for pack, cost in zip(dearest_first.tolist(), costs[dearest_first].tolist(), strict=True):
        place = open_ones[0][1]
        found[place].append(pack)
        sums[place] += cost
        if len(found[place]) < most_packs:
            heapq.heapreplace(open_ones, (sums[place], place))
        else:
            heapq.heappop(open_ones)
    return found, np.array(sums, dtype=np.int64)
