"""Lays examples end to end in packs of a fixed length; works on lengths and returns indices.

The order is cut into windows, and each window is packed by first-fit decreasing: a pack takes the longest
example that is left, then again and again the longest that still fits. So packs are full, and yet an example
stays near its place in the order. The packs of a window are shuffled, as the fullest would come first.

    lengths 5 4 3 2 2, packs of 8:   [5 3] [4 2 2]

Invariant: the packs partition the order; none is longer than its length. The examples of packs that a window
leaves half empty are handed on to the next window, once: none is further than two windows from its place.

Source: first-fit decreasing with packs filled one at a time, Johnson 1973; packing for training without
contamination: Krell et al. 2021 (arXiv 2107.02027).
"""

import numpy as np

from sft.schema import IntArray
from sft.seeds import derive_seed

WINDOW_PACKS = 256
"""Packs' worth of examples in a window: enough for full packs, few enough to keep to the order."""

_HAND_ON_BELOW = 0.99


def pack_order(lengths: IntArray, pack_len_tokens: int, seed: int) -> tuple[IntArray, IntArray]:
    """Pack the order whose i-th element has `lengths[i]` tokens.

    Returns:
        The positions in the order, pack after pack, (num_elements,), and where each pack starts among them,
        (num_packs + 1,).
    """
    assert lengths.max(initial=0) <= pack_len_tokens, "an example is longer than a pack"
    ends = np.cumsum(lengths)
    packs: list[list[int]] = []
    start, carried = 0, np.empty(0, np.int64)
    window = 0
    while start < len(lengths):
        reached = (ends[start - 1] if start else 0) + WINDOW_PACKS * pack_len_tokens
        stop = max(start + 1, int(np.searchsorted(ends, reached)))
        elements = np.concatenate([carried, np.arange(start, stop)])
        filled = _pack_window(lengths[elements], pack_len_tokens)
        least = 0 if stop >= len(lengths) else _HAND_ON_BELOW * pack_len_tokens
        kept: list[list[int]] = []
        handed_on: list[list[int]] = []
        for pack in filled:
            # Where examples fit together badly no pack is full, and all of them would be handed on to the very end.
            was_handed_on = min(pack) < len(carried)
            (kept if was_handed_on or lengths[elements[pack]].sum() >= least else handed_on).append(pack)
        carried = elements[sorted(i for pack in handed_on for i in pack)]
        shuffled = np.random.default_rng(derive_seed(seed, "window", window)).permutation(len(kept))
        packs += [elements[kept[i]].tolist() for i in shuffled]
        start, window = stop, window + 1
    starts = np.concatenate([[0], np.cumsum([len(p) for p in packs], dtype=np.int64)])
    return np.array([element for p in packs for element in p], dtype=np.int64), starts


def _pack_window(lengths: IntArray, capacity: int) -> list[list[int]]:
    """First-fit decreasing, one pack at a time.

    Examples of one length are interchangeable, so what is left is a set of lengths: the bits of one integer, of
    which the longest that fits is the highest bit below the space that is left.
    """
    by_length: dict[int, list[int]] = {}
    for i in reversed(range(len(lengths))):
        by_length.setdefault(int(lengths[i]), []).append(i)
    left = sum(1 << length for length in by_length)
    packs = []
    while left:
        space, pack = capacity, []
        while fitting := left & ((2 << space) - 1):
            length = fitting.bit_length() - 1
            pack.append(by_length[length].pop())
            if not by_length[length]:
                left ^= 1 << length
            space -= length
        packs.append(pack)
    return packs
