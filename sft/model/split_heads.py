"""Which numbers of ranks the heads of attention can be divided among, when ranks share a row: pure arithmetic.

Each rank computes consecutive heads of queries. Heads of keys and values are repeated as often as it takes to give each
rank those of its own queries: not at all where there are a multiple of the ranks.

    8 heads of queries, 2 of keys, 4 ranks     queries 0 1|2 3|4 5|6 7     keys, each twice: 0|0|1|1
"""

from collections.abc import Iterable, Sequence
from math import gcd


def key_repeats(num_heads: int, num_key_heads: int, num_ranks: int) -> int | None:
    """How often each head of keys is repeated; None if the heads cannot be divided among so many ranks."""
    repeats = num_ranks // gcd(num_key_heads, num_ranks)
    return None if num_heads % (num_key_heads * repeats) else repeats


def largest_divisible(heads: Iterable[tuple[int, int]], num_ranks: int) -> list[int]:
    """How many ranks, up to `num_ranks`, all of these (heads of queries, heads of keys) can be divided among."""
    pairs = list(heads)
    return [n for n in range(1, num_ranks + 1) if all(key_repeats(*pair, n) is not None for pair in pairs)]


def why_not_divisible(heads: Sequence[tuple[int, int]], num_ranks: int) -> str | None:
    """Why the attention of a model cannot be divided among so many ranks, and what can; None where it can be."""
    for num_heads, num_key_heads in heads:
        if key_repeats(num_heads, num_key_heads, num_ranks) is None:
            work = ", ".join(map(str, largest_divisible(heads, max(h for h, _ in heads))))
            return (
                f"{num_heads} heads of attention, {num_key_heads} of keys, cannot be divided among {num_ranks} workers "
                f"equally. For this model work: {work}"
            )
    return None
