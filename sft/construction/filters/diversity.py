"""Drops the drafts that are nearest to others, so that those that stay are further apart: a share of them, if told so.

Likeness is that of word runs (MinHash), as for near copies, but below what makes a copy. The bound falls step by step
until the share is reached; of the last step, later drafts go first. Seeds are not compared: `copies` does that.
"""

from collections.abc import Iterator
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from sft.construction.filters.draft_parts import UNREADABLE, DraftParts, without_system
from sft.construction.filters.filter import Filter, Judge, Late, Look, Surroundings
from sft.construction.filters.near_copies import NearCopies
from sft.data.duplicates import minhash
from sft.draft import Draft
from sft.schema import BoolArray

_STEP = 0.05


class Diversity(Filter):
    """A share of the drafts that all filters before it keep."""

    name: ClassVar[str] = "diversity"
    shorthand: ClassVar[str] = "drop_share"
    begins_pass: ClassVar[bool] = True

    drop_share: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.1
    """The share that is dropped, if so many are like others at all."""
    at_least: Annotated[float, Field(ge=0.1, le=1.0)] = 0.3
    """The least likeness for which a draft is dropped."""

    def look(self, around: Surroundings) -> Look:
        """It sees a signature."""
        return _DiversityLook()

    def begin(self, around: Surroundings) -> Judge:
        """It remembers a signature of each."""
        return _DiversityJudge(self, NearCopies(around.scratch / "diversity"))


class _DiversityLook(Look):
    def see(self, parts: DraftParts) -> bytes | None:
        """None where training could not read it."""
        return None if parts.conversation is None else minhash(without_system(parts.conversation)).tobytes()


class _DiversityJudge(Judge):
    def __init__(self, given: Diversity, copies: NearCopies) -> None:
        self._given, self._copies = given, copies

    def judge(self, draft: Draft, seen: bytes | None) -> str | None:
        """Only what training can read is compared."""
        return UNREADABLE if seen is None else None

    def keep(self, draft: Draft, seen: bytes) -> None:
        """Remember it."""
        self._copies.add(seen)

    def finish(self) -> Late | None:
        """Lower the bound until the share is reached."""
        num = int(self._given.drop_share * self._copies.num)
        dropped: BoolArray = np.zeros(self._copies.num, dtype=bool)
        for similarity in self._bounds():
            if dropped.sum() >= num:
                break
            further = np.flatnonzero(self._copies.find(similarity) & ~dropped)
            dropped[further[::-1][: num - int(dropped.sum())]] = True
        return Late("it is among those that are nearest to others", dropped)

    def _bounds(self) -> Iterator[float]:
        return reversed([i * _STEP for i in range(1, 21) if i * _STEP >= self._given.at_least - 1e-9])
