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
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from itertools import accumulate

import numpy as np
import numpy.typing as npt

from sft.schema import IntArray

Numbers = npt.NDArray[np.uint32]
Floats = npt.NDArray[np.float64]

MOST_COMPARED = 1000
MOST_PLACES = 1 << 15
"""Of the rarest words of a new text, so many places in other texts are looked at: its time is bounded."""
MOST_WORDS = 512
"""Of a text; what follows is not compared."""
_ROUNDING = 1e-9
_SKETCH_BITS = 512
_UNKNOWN = -1
"""In place of words that no text has."""
_LENGTHS = np.arange(MOST_WORDS + 1)


class PromptPool:
    """Texts that are there already, at about 150 bytes and 10 for each word."""

    def __init__(self, limit: float) -> None:
        """`limit`: the ROUGE-L at which a text is like another, above 0."""
        self._limit = limit
        self._ids: dict[str, int] = {}
        self._places: dict[int, array[int]] = {}
        """A word and how often it stood before in its text (see `_counted`) → the texts with it."""
        self._words, self._starts = array("I"), array("Q", [0])
        self._lengths = array("H")
        self._sketches = bytearray()
        """See `_sketch`."""
        self._is_given = np.zeros(0, dtype=bool)
        """By word, and for `_UNKNOWN` at the end: whether the new text has it. False between calls."""

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
        self._sketches += _sketch(ids).data

    def find(self, words: Sequence[str], among: int | None = None) -> int | None:
        """The first text that it is like, of those compared; None if it is new. `among`: of the first so many alone."""
        given = words[:MOST_WORDS]
        if not given:
            return None
        ids = [self._ids.get(word, _UNKNOWN) for word in given]
        # Words in common that reach the limit, by the length of the other text.
        needed = self._limit * (len(ids) + _LENGTHS) / 2 - _ROUNDING
        texts = self._candidates(ids, needed, len(self) if among is None else among)
        if not len(texts):
            return None
        # No more words are in common than stand in both: most texts need no comparison. Of what the
        # sketches leave of 200,000 long prompts, the second look leaves one in a hundred.
        for most_in_common in (self._num_sketched, self._num_in_both):
            lengths = np.frombuffer(self._lengths, np.uint16).take(texts)
            texts = texts[most_in_common(ids, texts, lengths) >= needed.take(lengths)]
            if not len(texts):
                return None
        places = _places(ids)
        for number in texts.tolist():
            other = self._words[self._starts[number] : self._starts[number + 1]]
            if _common(len(ids), places, other) >= needed[len(other)]:
                return int(number)
        return None

    def _candidates(self, ids: Sequence[int], needed: Floats, among: int) -> Numbers:
        """The texts to compare, rising, of the first so many."""
        num, limit = len(ids), self._limit
        num_looked_at = num - int(np.ceil(limit * num / (2 - limit) - _ROUNDING)) + 1
        found = [self._places.get(key, _NONE) for key in _counted(ids)]
        if among < len(self):
            found = [places[: bisect_left(places, among)] for places in found]
        found = sorted(found, key=len)[:num_looked_at]
        ends = [*accumulate(map(len, found))]
        found = found[: max(1, bisect_right(ends, MOST_PLACES))]
        joined = array("I")
        for places in found:
            joined.extend(places)
        numbers, lengths = np.frombuffer(joined, np.uint32), np.frombuffer(self._lengths, np.uint16)
        # By their lengths alone most are out, before they are sorted. `take` and `compress` are thrice as fast as [].
        able = np.flatnonzero(np.minimum(num, _LENGTHS) >= needed)  # in a row
        of = lengths.take(numbers)
        texts, shared = np.unique(numbers.compress((of >= able[0]) & (of <= able[-1])), return_counts=True)
        may_be = shared >= (needed - (num - len(found))).take(lengths.take(texts))
        texts, shared = texts.compress(may_be), shared.compress(may_be)
        if len(texts) > MOST_COMPARED:
            texts = np.sort(texts[np.argsort(-shared, kind="stable")[:MOST_COMPARED]])
        return texts

    def _num_sketched(self, ids: Sequence[int], texts: Numbers, lengths: IntArray) -> IntArray:
        """Of each of these texts, at most how many of its words the new text has, by their sketches."""
        sketches = np.frombuffer(self._sketches, np.uint64).reshape(len(self), -1)
        lacking = np.bitwise_count(sketches.take(texts, axis=0) & ~_sketch(ids))
        return np.asarray(lengths - lacking.sum(axis=1, dtype=np.int64))

    def _num_in_both(self, ids: Sequence[int], texts: Numbers, lengths: IntArray) -> IntArray:
        """Of each of these texts, which have words, how many of its words the new text has, too."""
        if len(self._is_given) <= len(self._ids):
            self._is_given = np.zeros(2 * len(self._ids), dtype=bool)
        words, starts = np.frombuffer(self._words, np.uint32), np.frombuffer(self._starts, np.uint64)
        begins = np.cumsum(lengths, dtype=np.int64) - lengths
        at = np.repeat(starts.take(texts).astype(np.int64) - begins, lengths)
        at += np.arange(len(at))
        given = np.array(ids)
        self._is_given[given] = True
        num = np.add.reduceat(self._is_given.take(words.take(at)), begins, dtype=np.int64)
        self._is_given[given] = False
        return np.asarray(num)


def common_length(one: Sequence[Hashable], other: Sequence[Hashable]) -> int:
    """The length of the longest common subsequence: one operation on long integers for each word (Hyyrö 2004)."""
    return _common(len(one), _places(one), other)


def rouge_l_with(one: Sequence[Hashable]) -> Callable[[Sequence[Hashable]], float]:
    """ROUGE-L of one text with many others, which have words: 0 to 1."""
    num, places = len(one), _places(one)
    return lambda other: 2 * _common(num, places, other) / (num + len(other))


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


def _sketch(ids: Sequence[int]) -> npt.NDArray[np.uint64]:
    """The words of a text as bits, one of 512 for each: of a bit that another text lacks, it lacks a word."""
    bits = np.zeros(_SKETCH_BITS, dtype=bool)
    bits[np.array(ids, dtype=np.int64) % _SKETCH_BITS] = True
    return np.packbits(bits, bitorder="little").view(np.uint64)


def _counted(ids: Iterable[int]) -> list[int]:
    """For each word a number that says which it is and how often it stood before."""
    seen: dict[int, int] = {}
    keys = []
    for i in ids:
        times = seen.get(i, 0)
        seen[i] = times + 1
        keys.append(i * MOST_WORDS + times)
    return keys
