"""A table from hashes to places in a file: 24 to 48 bytes for an entry, where a dict takes more than 100.

Two lines may have the same hash: whoever looks one up reads the lines and compares their names.
"""

from array import array
from collections.abc import Iterator

_FIRST_SLOTS = 1 << 10


class OffsetTable:
    """Open addressing with linear probing (Knuth, TAOCP 3, 6.4, algorithm L); at most two thirds are full."""

    def __init__(self) -> None:
        """It is empty."""
        self._num = 0
        self._clear(_FIRST_SLOTS)

    def __len__(self) -> int:
        """The number of entries."""
        return self._num

    @property
    def num_bytes(self) -> int:
        """What it takes in memory."""
        return self._hashes.itemsize * len(self._hashes) + self._places.itemsize * len(self._places)

    def add(self, of: int, offset: int) -> None:
        """Add the offset of a line whose hash is `of`, which has at most 64 bits."""
        if 3 * (self._num + 1) > 2 * len(self._hashes):
            before = zip(self._hashes, self._places, strict=True)
            self._clear(2 * len(self._hashes))
            for hashed, place in before:
                if place:
                    self._put(hashed, place)
        self._put(of, offset + 1)
        self._num += 1

    def find(self, of: int) -> Iterator[int]:
        """The offsets of the lines with this hash, the first added first."""
        slot = of & self._mask
        while place := self._places[slot]:
            if self._hashes[slot] == of:
                yield place - 1
            slot = (slot + 1) & self._mask

    def _put(self, of: int, place: int) -> None:
        slot = of & self._mask
        while self._places[slot]:
            slot = (slot + 1) & self._mask
        self._hashes[slot], self._places[slot] = of, place

    def _clear(self, num_slots: int) -> None:
        self._mask = num_slots - 1
        self._hashes, self._places = array("Q", bytes(8 * num_slots)), array("Q", bytes(8 * num_slots))
        """The places are offsets plus 1; 0 is an empty slot."""
