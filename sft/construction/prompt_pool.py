"""Finds the prompt among those that are there which a new one is like by ROUGE-L, without comparing it with each.

ROUGE-L of two texts is 2·LCS / (m + n), and their longest common subsequence has no more words than they share. So a
text of m words that reaches the limit t shares at least t·m / (2 − t) of them. Of the new text's words it is enough to
look at the m − t·m / (2 − t) + 1 rarest, one of which the other has, too (prefix filtering; Chaudhuri et al. 2006).
What has enough words and length is compared exactly, up to the thousand that share most of these words. Where even rare
words stand in very many texts, only the rarest are looked at.

ROUGE-L: Lin 2004, here of words of any script and without stemming; as a measure of what is new: Self-Instruct, arXiv
2212.10560, section 3.1.
"""

from array import array
from bisect import bisect_left
from collections.abc import Hashable, Iterable, Mapping, Sequence

import numpy as np

MOST_COMPARED = 1000
MOST_PLACES = 1 << 15
"""Of the rarest words of a new text, so many places in other texts are looked at: its time is bounded."""
MOST_WORDS = 512
"""Of a text; what follows is not compared."""
_ROUNDING = 1e-9


class PromptPool:
    """Texts that are there already, at about 100 bytes and 10 for each word."""

    def __init__(self, limit: float) -> None:
        """`limit`: the ROUGE-L at which a text is like another, above 0."""
        self._limit = limit
        self._ids: dict[str, int] = {}
        self._places: dict[tuple[int, int], array[int]] = {}
        """A word and how often it stood before in its text → the texts with it."""
        self._words, self._starts = array("I"), array("Q", [0])
        self._lengths = array("I")

    def __len__(self) -> int:
        """The number of texts."""
        return len(self._lengths)

    def add(self, words: Sequence[str]) -> None:
        """Add one; it gets the next number."""
        number, ids = len(self), [self._ids.setdefault(word, len(self._ids)) for word in words[:MOST_WORDS]]
        for key in _counted(ids):
            if key in self._places:
                self._places[key].append(number)
            else:
                self._places[key] = array("I", [number])
        self._words.extend(ids)
        self._starts.append(len(self._words))
        self._lengths.append(len(ids))

    def find(self, words: Sequence[str], among: int | None = None) -> int | None:
        """The first text that it is like, of those compared; None if it is new. `among`: of the first so many alone."""
        given = words[:MOST_WORDS]
        if not given:
            return None
        # Words that no text has count as ids of their own.
        unknown: dict[str, int] = {}
        ids = [self._ids.get(word, -1) for word in given]
        ids = [unknown.setdefault(word, -1 - len(unknown)) if i < 0 else i for word, i in zip(given, ids, strict=True)]
        places = _places(ids)
        for number in self._candidates(ids, len(self) if among is None else among):
            other = self._words[self._starts[number] : self._starts[number + 1]]
            needed = self._limit * (len(ids) + len(other)) / 2 - _ROUNDING
            # No more words are in common than stand in both: most texts need no comparison.
            if sum(map(places.__contains__, other)) >= needed and _common(len(ids), places, other) >= needed:
                return number
        return None

    def _candidates(self, ids: Sequence[int], among: int) -> list[int]:
        """The texts to compare, rising, of the first so many."""
        num, limit = len(ids), self._limit
        num_looked_at = num - int(np.ceil(limit * num / (2 - limit) - _ROUNDING)) + 1
        places_of = (self._places.get(key, _NONE) for key in _counted(ids))
        cut = [places[: bisect_left(places, among)] if among < len(self) else places for places in places_of]
        found = sorted(cut, key=len)[:num_looked_at]
        ends = np.cumsum([len(places) for places in found])
        found = found[: max(1, int(np.searchsorted(ends, MOST_PLACES, side="right")))]
        joined = array("I")
        for places in found:
            joined.extend(places)
        if not joined:
            return []
        numbers, lengths = np.frombuffer(joined, np.uint32), np.frombuffer(self._lengths, np.uint32)
        of = lengths[numbers]
        # By their lengths alone most are out, before they are sorted.
        numbers = numbers[np.minimum(num, of) >= limit * (num + of) / 2 - _ROUNDING]
        texts, shared = np.unique(numbers, return_counts=True)
        needed = limit * (num + lengths[texts]) / 2 - _ROUNDING
        may_be = shared >= needed - (num - len(found))
        texts, shared = texts[may_be], shared[may_be]
        if len(texts) > MOST_COMPARED:
            texts = texts[np.argsort(-shared, kind="stable")[:MOST_COMPARED]]
        return [int(text) for text in np.sort(texts)]


def common_length(one: Sequence[Hashable], other: Sequence[Hashable]) -> int:
    """The length of the longest common subsequence: one operation on long integers for each word (Hyyrö 2004)."""
    return _common(len(one), _places(one), other)


def _places(words: Iterable[Hashable]) -> dict[Hashable, int]:
    """Word → the places where it stands, as bits."""
    places: dict[Hashable, int] = {}
    for i, word in enumerate(words):
        places[word] = places.get(word, 0) | 1 << i
    return places


def _common(num: int, places: Mapping[Hashable, int], other: Iterable[Hashable]) -> int:
    every = (1 << num) - 1
    state = every
    for word in other:
        if at := places.get(word):
            matches = state & at
            state = ((state + matches) | (state - matches)) & every
    return num - state.bit_count()


_NONE: "array[int]" = array("I")


def _counted(ids: Sequence[int]) -> list[tuple[int, int]]:
    seen: dict[int, int] = {}
    keys = []
    for i in ids:
        seen[i] = seen.get(i, 0) + 1
        keys.append((i, seen[i]))
    return keys
