"""Which of many records are like an earlier one by MinHash: their signatures lie in a file, in order."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from sft.construction.folder import written_to
from sft.data.duplicates import NUM_PERMUTATIONS
from sft.data.near_duplicates import Signatures, find_near_duplicates
from sft.schema import BoolArray

_SIGNATURES_AT_ONCE = 1 << 12
_SIZE = NUM_PERMUTATIONS * np.dtype(np.uint32).itemsize
"""Of a signature, in bytes."""


class NearCopies:
    """Signatures in the order in which they are added."""

    def __init__(self, scratch: Path) -> None:
        """`scratch` is not there yet.

        Raises:
            UserError: the disk is full, as for the other methods.
        """
        with written_to(scratch):
            scratch.mkdir()
        self._scratch, self.num = scratch, 0
        self._path = scratch / "signatures"
        self._unwritten = bytearray()

    def add(self, signature: bytes) -> None:
        """The next one: the bytes of a signature, (NUM_PERMUTATIONS,) of uint32."""
        self._unwritten += signature
        self.num += 1
        if len(self._unwritten) >= _SIGNATURES_AT_ONCE * _SIZE:
            self._write()

    def find(self, similarity: float) -> BoolArray:
        """True for each that is so similar to an earlier one that stays: (num,). No more are added behind it."""
        self._write()
        if not self.num:
            return np.zeros(0, dtype=bool)
        scratch = self._scratch / f"{similarity:.3f}"
        with written_to(scratch):
            scratch.mkdir()
            firsts = find_near_duplicates(self._read, np.ones(self.num, dtype=bool), similarity, scratch)
        return np.asarray(firsts != np.arange(self.num))

    def _write(self) -> None:
        # It is open no longer than this, so that nobody has to close it.
        with written_to(self._path), self._path.open("ab") as file:
            file.write(self._unwritten)
        self._unwritten.clear()

    def _read(self) -> Iterator[Signatures]:
        with self._path.open("rb") as file:
            while piece := file.read(_SIGNATURES_AT_ONCE * _SIZE):
                yield np.frombuffer(piece, np.uint32).reshape(-1, NUM_PERMUTATIONS)
