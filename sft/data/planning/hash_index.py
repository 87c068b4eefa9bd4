"""Distinct hashes, in which others are looked up by the million: most that are not among them need no search."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sft.schema import BoolArray, IntArray

Hashes = npt.NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class HashIndex:
    """Distinct hashes, sorted."""

    hashes: Hashes  # (num_hashes,)
    may_be_there: BoolArray  # (2**k,), by the upper k bits of a hash: False where none has them
    shift: np.uint64

    @classmethod
    def of(cls, hashes: Hashes) -> "HashIndex":
        """The index of these, which are distinct and rise."""
        # Sixteen cells for each hash, so fifteen of sixteen others need no search.
        num_bits = int(np.clip((16 * len(hashes)).bit_length(), 10, 27))
        shift = np.uint64(64 - num_bits)
        may_be_there = np.zeros(1 << num_bits, dtype=bool)
        may_be_there[hashes >> shift] = True
        return cls(hashes, may_be_there, shift)

    def find(self, hashes: Hashes) -> tuple[IntArray, IntArray]:
        """Which of `hashes` are among them, and which one each of these is."""
        maybe = np.flatnonzero(self.may_be_there[hashes >> self.shift])
        rows = np.searchsorted(self.hashes, hashes[maybe])
        rows[rows == len(self.hashes)] = 0
        found = self.hashes[rows] == hashes[maybe] if len(self.hashes) else np.zeros(0, dtype=bool)
        return maybe[found], rows[found]
