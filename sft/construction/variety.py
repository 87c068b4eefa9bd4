"""How varied wordings are: with which words prompts begin, and how many runs of words differ.

Self-Instruct (arXiv 2212.10560, figure 2) shows the root verb of each instruction and its direct object. That needs a
parser of the language. The first two words need none, in any language; an English instruction mostly begins with its
verb. Distinct-n (Li et al. 2016, arXiv 1510.03055) is the number of different runs of n words, by all of them. It falls
with the number of words, so two sets are compared by equally many.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

from sft.construction.shown_draft import ShownDraft

MOST_FIRST = 15
MOST_SECOND = 4
SIZES = (1, 2, 3)


class FirstWord(NamedTuple):
    """A word with which prompts begin."""

    word: str
    num: int
    """The prompts that do."""
    seconds: list[tuple[str, int]]
    """The most frequent next words; empty for a prompt of one word."""


@dataclass(frozen=True, slots=True)
class Variety:
    """Of a set of prompts."""

    num_prompts: int
    first_words: list[FirstWord]
    """The most frequent ones first, at most `MOST_FIRST`."""
    num_first: int
    """Different first words."""
    num_pairs: int
    """Different first two words."""
    distinct: list[float]
    """Distinct-n for each of `SIZES`; NaN-free: 0 where there is no run of n words."""
    num_words: int
    """The words that distinct-n counts."""


def varieties(*sets: Sequence[ShownDraft]) -> list[Variety]:
    """Of each set; distinct-n is of as many words as the smallest set that has any."""
    num_words = min((num for one in sets if (num := sum(len(d.prompt_words) for d in one))), default=0)
    return [_variety(one, num_words) for one in sets]


def _variety(drafts: Sequence[ShownDraft], num_words: int) -> Variety:
    beginnings: dict[str, Counter[str]] = defaultdict(Counter)
    for draft in drafts:
        if draft.prompt_words:
            beginnings[draft.prompt_words[0]][" ".join(draft.prompt_words[1:2])] += 1
    ordered = sorted(beginnings.items(), key=lambda one: (-one[1].total(), one[0]))
    first_words = [
        FirstWord(word, seconds.total(), [one for one in seconds.most_common(MOST_SECOND) if one[0]])
        for word, seconds in ordered[:MOST_FIRST]
    ]
    pairs = sum(len(seconds) for seconds in beginnings.values())
    distinct = [_distinct(drafts, size, num_words) for size in SIZES]
    return Variety(len(drafts), first_words, len(beginnings), pairs, distinct, num_words)


def _distinct(drafts: Sequence[ShownDraft], size: int, num_words: int) -> float:
    left, runs = num_words, Counter[tuple[str, ...]]()
    for draft in drafts:
        words = draft.prompt_words[:left]
        left -= len(words)
        runs.update(zip(*(islice(words, start, None) for start in range(size)), strict=False))
    return len(runs) / runs.total() if runs else 0.0
