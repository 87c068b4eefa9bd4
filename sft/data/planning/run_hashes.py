"""Hashes of all runs of some numbers, in a few operations on arrays whatever the length of a run."""

import numpy as np

from sft.data.planning.hash_index import Hashes
from sft.schema import IntArray

_FACTOR = 0x9E3779B97F4A7C15
_INVERSE = pow(_FACTOR, -1, 1 << 64)


class RunHashes:
    """Polynomials of the numbers modulo 2^64: the difference of two prefix sums, shifted to power 0."""

    def __init__(self, numbers: Hashes) -> None:
        """The runs of these."""
        self._sums = np.zeros(len(numbers) + 1, dtype=np.uint64)
        np.cumsum(numbers * _powers(_FACTOR, len(numbers)), out=self._sums[1:])
        self._to_power_0 = _powers(_INVERSE, len(numbers))

    def __len__(self) -> int:
        """The number of numbers."""
        return len(self._to_power_0)

    def of(self, starts: IntArray, length: int | IntArray) -> Hashes:
        """The runs of so many numbers that begin at these places; each may have a length of its own."""
        return np.asarray((self._sums[starts + length] - self._sums[starts]) * self._to_power_0[starts])

    def of_all(self, length: int) -> Hashes:
        """All runs of so many numbers, in order."""
        num = max(0, len(self._to_power_0) - length + 1)
        return np.asarray((self._sums[length:] - self._sums[:num]) * self._to_power_0[:num])


def _powers(factor: int, count: int) -> Hashes:
    """`factor` to the powers 0, 1, …, modulo 2^64."""
    powers = np.full(count, factor, dtype=np.uint64)
    powers[:1] = 1
    return np.multiply.accumulate(powers)


def ranges(starts: IntArray, counts: IntArray) -> IntArray:
    """`counts[i]` numbers from `starts[i]`, one range behind the other."""
    before = np.cumsum(counts) - counts
    return np.asarray(np.arange(counts.sum()) + np.repeat(starts - before, counts))
