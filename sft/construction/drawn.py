"""Draws some of many at random, in one pass, with as much memory as the drawn ones take.

What has the smallest hash of seed and name is drawn (bottom-k sampling; Cohen and Kaplan 2007). So the same things give
the same draw in any order.
"""

import hashlib
from bisect import insort
from collections.abc import Callable
from typing import Generic, TypeVar

Thing = TypeVar("Thing")


class Drawn(Generic[Thing]):
    """At most `num` (1 or more) of what was offered, each with the same probability."""

    def __init__(self, num: int, seed: int) -> None:
        """Nothing was offered yet."""
        self._num, self._seed = num, seed
        self._kept: list[tuple[int, int, Thing]] = []
        self.num_offered = 0

    def offer(self, name: str, make: Callable[[], Thing]) -> None:
        """Offer something; `make` is called if it is drawn so far."""
        digest = hashlib.blake2b(f"{self._seed}\x1f{name}".encode("utf-8", "backslashreplace"), digest_size=8).digest()
        place = int.from_bytes(digest)
        self.num_offered += 1
        if len(self._kept) < self._num or place < self._kept[-1][0]:
            # The number tells equal names apart: things need no order.
            insort(self._kept, (place, self.num_offered, make()))
            del self._kept[self._num :]

    @property
    def things(self) -> list[Thing]:
        """What is drawn, in an order that has nothing to do with what it is."""
        return [thing for _, _, thing in self._kept]
