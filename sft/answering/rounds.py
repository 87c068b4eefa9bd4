"""In which order questions are answered, and by which rank: pure arithmetic on their lengths.

A round is a batch for each rank. Within a stretch of a few rounds, questions of like length share a batch, so a round
may hold one task alone. A bound on time therefore cuts between slices, each of which has its part of every group.
"""

import math
from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np

from sft.seeds import derive_seed

_BATCHES_PER_STRETCH = 4
"""How many batches of each rank are sorted together."""


class Lengths(NamedTuple):
    """The lengths of a question in tokens."""

    prompt: int
    answer: int
    """The most that is written, or a choice's longest option."""


class BatchSize(NamedTuple):
    """The most that a batch holds."""

    rows: int = 32
    slots: int = 16_384
    """Rows × (the longest prompt + the longest answer)."""


ROWS_IN_STEP = 128
"""The most rows where the model is split over the ranks: each token gathers all layers, for however many rows."""


Round = list[list[int]]
"""For each rank, the indices of the questions in its batch; a rank may have none."""


def slices_of(groups: Sequence[Hashable], least: int) -> list[list[int]]:
    """The indices of the questions, cut into slices that are answered one after the other.

    Each slice has the same part of each group, as far as its questions suffice; the first one has some of every group.

    Args:
        groups: of each question, what it belongs to.
        least: how many questions a slice should have, so that its batches are full.
    """
    members: dict[Hashable, list[int]] = {}
    for i, group in enumerate(groups):
        members.setdefault(group, []).append(i)
    largest = max(map(len, members.values()), default=0)
    num_slices = max(1, min(largest, len(groups) // least))
    slices: list[list[int]] = [[] for _ in range(num_slices)]
    for own in members.values():
        for place, i in enumerate(own):
            slices[place * num_slices // len(own)].append(i)
    return slices


def rounds_of(lengths: Sequence[Lengths], num_ranks: int, size: BatchSize, seed: int, pads: bool = True) -> list[Round]:
    """Each question once; with `pads` off, all prompts of a batch have one length."""
    random = np.random.default_rng(derive_seed(seed, "rounds"))
    order = random.permutation(len(lengths)).tolist()
    stretch = _BATCHES_PER_STRETCH * num_ranks * size.rows
    longest_row = max(map(sum, lengths), default=0)
    batches: list[list[int]] = []
    for start in range(0, len(order), stretch):
        ordered = sorted(order[start : start + stretch], key=lambda i: (lengths[i], i))
        # As few batches as every rank can have, of like size: no rank is idle while another has a full one.
        num_batches = num_ranks * math.ceil(len(ordered) / (num_ranks * size.rows))
        even = size._replace(rows=math.ceil(len(ordered) / num_batches))
        batches += _batches(ordered, lengths, even, longest_row, pads)
    rounds = []
    for start in range(0, len(batches), num_ranks):
        together = batches[start : start + num_ranks]
        rounds.append(together + [[] for _ in range(num_ranks - len(together))])
    return [rounds[i] for i in random.permutation(len(rounds))]


def _batches(
    ordered: Sequence[int], lengths: Sequence[Lengths], size: BatchSize, longest_row: int, pads: bool
) -> list[list[int]]:
    batches: list[list[int]] = []
    longest = Lengths(0, 0)
    for i in ordered:
        own = lengths[i]
        wider = Lengths(max(longest.prompt, own.prompt), max(longest.answer, own.answer))
        num_rows = len(batches[-1]) + 1 if batches else 1
        # A row is written until the last one of its batch ends: not past the end of the model's window.
        fits = num_rows <= size.rows and num_rows * sum(wider) <= size.slots and sum(wider) <= longest_row
        if batches and fits and (pads or own.prompt == longest.prompt):
            batches[-1].append(i)
            longest = wider
        else:
            batches.append([i])
            longest = own
    return batches
