"""Whether an instruction is new: ROUGE-L below a limit to all in a pool (Self-Instruct, arXiv 2212.10560, 3.1).

ROUGE-L is the F-measure of the longest common subsequence of words (Lin 2004), here of any script and without stemming.
Its length is found with one operation on long integers for each word (Hyyrö 2004), and only where both texts have
enough words in common.
"""

from collections.abc import Hashable, Sequence
from typing import NamedTuple

from sft.scoring.words import words_of


class _Text(NamedTuple):
    words: list[str]
    distinct: frozenset[str]

    @property
    def num_repeated(self) -> int:
        return len(self.words) - len(self.distinct)


class InstructionPool:
    """Instructions that there are already."""

    def __init__(self, limit: float = 0.7) -> None:
        """`limit` is the ROUGE-L at which a text is like another."""
        self._limit, self._texts = limit, list[_Text]()

    def add(self, text: str) -> None:
        """Add one."""
        self._texts.append(_text(text))

    def is_new(self, text: str) -> bool:
        """Whether it is like none of them."""
        new = _text(text)
        return not any(self._is_like(new, other) for other in self._texts)

    def _is_like(self, one: _Text, other: _Text) -> bool:
        total = len(one.words) + len(other.words)
        if not total:
            return True
        needed = self._limit * total / 2
        if min(len(one.words), len(other.words)) < needed:
            return False
        # No more words can be in common: each distinct one once, and those that both repeat.
        most = len(one.distinct & other.distinct) + min(one.num_repeated, other.num_repeated)
        return most >= needed and common_length(one.words, other.words) >= needed


def common_length(one: Sequence[Hashable], other: Sequence[Hashable]) -> int:
    """The length of the longest common subsequence."""
    places: dict[Hashable, int] = {}
    for i, word in enumerate(one):
        places[word] = places.get(word, 0) | 1 << i
    every = (1 << len(one)) - 1
    state = every
    for word in other:
        matches = state & places.get(word, 0)
        state = ((state + matches) | (state - matches)) & every
    return len(one) - state.bit_count()


def _text(text: str) -> _Text:
    words = words_of(text)
    return _Text(words, frozenset(words))
