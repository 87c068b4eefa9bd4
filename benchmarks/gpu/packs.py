"""Packs of random tokens with real lengths: a long tail like that of Dolly, without any data set.

The lengths are those of a log-normal distribution at evenly spread quantiles, in a fixed random order: so they are the
same everywhere. Its median of 130 tokens and its deviation of 0.95 (in the logarithm) give a mean of 200 tokens and 1 %
beyond 1,200. The last 45 % of each example is its answer, and supervised.
"""

from collections.abc import Sequence
from statistics import NormalDist

import numpy as np

from sft.schema import IntArray, Pack

_MEDIAN, _DEVIATION = 130.0, 0.95
_SUPERVISED_SHARE = 0.45
_NUM_LENGTHS = 4096


def long_tailed(num_tokens: int, longest: int) -> list[int]:
    """Lengths of examples that add up to this many tokens; none is longer than `longest`."""
    normal = NormalDist()
    quantiles = [normal.inv_cdf((i + 0.5) / _NUM_LENGTHS) for i in range(_NUM_LENGTHS)]
    scale = min(1.0, longest / 512)  # a small run has short examples
    lengths = [round(scale * _MEDIAN * float(np.exp(_DEVIATION * q))) for q in quantiles]
    np.random.default_rng(13).shuffle(lengths)
    taken, left, i = [], num_tokens, 0
    while left:
        length = min(max(4, lengths[i % _NUM_LENGTHS]), longest, left)
        # A rest of fewer than four tokens would be no example.
        length = left if left - length < 4 else length
        taken.append(length)
        left, i = left - length, i + 1
    return taken


def pack_of(lengths: Sequence[int], vocabulary: int, seed: int = 0) -> Pack:
    """One pack: these examples end to end."""
    bounds = np.cumsum([0, *lengths])
    mask = np.zeros(bounds[-1], dtype=bool)
    for start, stop in zip(bounds, bounds[1:], strict=False):
        mask[start + max(1, round((1 - _SUPERVISED_SHARE) * (stop - start))) : stop] = True
    tokens = np.random.default_rng(seed).integers(0, vocabulary, bounds[-1])
    return Pack(seed, np.arange(len(lengths)), tokens, mask, bounds)


def packs_of(num_packs: int, pack_len: int, vocabulary: int) -> list[Pack]:
    """Full packs of long-tailed examples, each as long as it says."""
    lengths = long_tailed(num_packs * pack_len, pack_len)
    ends: IntArray = np.cumsum(lengths)
    # Examples that cross the end of a pack are cut there, which keeps all packs full.
    cuts = np.union1d(ends, np.arange(1, num_packs + 1) * pack_len)
    packs = []
    for i in range(num_packs):
        inside = cuts[(cuts > i * pack_len) & (cuts <= (i + 1) * pack_len)]
        packs.append(pack_of(np.diff([i * pack_len, *inside]).tolist(), vocabulary, seed=i))
    return packs
