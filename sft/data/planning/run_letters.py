"""Which texts may have one of some runs of tokens, told from their letters: tokenizing takes much longer.

Tokens that say the same have the same letters: what they say, in lower case and without white space. So a text that has
a run has all of the run's letters in a row.

    tokens of a run ──▶ its letters ──▶ a hash of the first ones, as many as it has tokens or twice as many; one of all
    text ──▶ its letters ──▶ where first ones of a run stand ──▶ do all of them?

Invariant: a text that has a run is never ruled out. So a text may have one if the tokenizer drops or changes one of its
characters, which is tried. Where a token is part of a character, only the tokens before or behind it are looked for.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from string import ascii_letters, digits, punctuation
from unicodedata import is_normalized

import numpy as np
import numpy.typing as npt

from sft.data.plain_tokenizer import PlainTokenizer
from sft.data.planning.hash_index import Hashes, HashIndex
from sft.data.planning.run_hashes import RunHashes, ranges
from sft.schema import BoolArray, IntArray

_MOST_TIMES = 2
_BREAK = b"\n"
"""Between texts: no letter."""
_PART = "\N{REPLACEMENT CHARACTER}"
"""In the text of a token that is part of a character."""
_SIGNS = ascii_letters + digits + punctuation
_OTHERS = re.compile(r"[^\x20-\x7e\t-\r]")


@dataclass(frozen=True, slots=True)
class RunLetters:
    """Some of the letters of each of some runs. It can be pickled."""

    _firsts: HashIndex
    """The first letters, up to `_MOST_TIMES` times `_length`."""
    _begins: IntArray
    """Where the runs with each of these begin among all, and the end."""
    _nums: IntArray
    """Of each run how many letters it has."""
    _wholes: Hashes
    """A hash of all its letters."""
    _length: int
    _tokenizer: PlainTokenizer
    _is_whole: bool
    """Whether there are such letters of each run; if not, they are there of those that ASCII has."""
    _is_spelled: dict[str, bool] = field(default_factory=dict)
    """Characters other than `_SIGNS`, and whether the tokenizer leaves them as they are: those met so far."""

    def may_have(self, texts: Sequence[str]) -> BoolArray:
        """Whether each of some texts may have one of the runs: (num_texts,)."""
        may_have = np.array([not self._tells(text) for text in texts], dtype=bool)
        told = np.flatnonzero(~may_have)
        letters = [_letters_of(text) for text, may_be in zip(texts, may_have, strict=True) if not may_be]
        ends = np.cumsum([len(of) + len(_BREAK) for of in letters])
        hashes = RunHashes(_numbers(_BREAK.join(letters)))
        for times in range(1, _MOST_TIMES + 1):
            places, rows = self._firsts.find(hashes.of_all(times * self._length))
            counts = self._begins[rows + 1] - self._begins[rows]
            places, runs = np.repeat(places, counts), ranges(self._begins[rows], counts)
            nums = np.minimum(self._nums[runs], len(hashes) - places)
            places = places[hashes.of(places, nums) == self._wholes[runs]]
            may_have[told[np.searchsorted(ends, places, side="right")]] = True
        return may_have

    def _tells(self, text: str) -> bool:
        """Whether the letters of the text are those of its tokens."""
        others = set(_OTHERS.findall(text))
        return not others or (self._is_whole and is_normalized("NFC", text) and all(map(self._spells, others)))

    def _spells(self, character: str) -> bool:
        if character not in self._is_spelled:
            self._is_spelled[character] = _spells(self._tokenizer, character)
        return self._is_spelled[character]


def letters_of_runs(
    pieces: Iterator[tuple[IntArray, IntArray]], length: int, tokenizer: PlainTokenizer
) -> RunLetters | None:
    """The letters of runs of `length` tokens; None if the tokenizer does not leave ASCII as it is.

    Args:
        pieces: token ids, none of which is white space alone, and the places in them where runs begin.
        length: of a run, in tokens.
        tokenizer: of which they are.
    """
    if not all(_spells(tokenizer, sign) for sign in _SIGNS):
        return None
    found, is_whole = [np.zeros((0, 3), dtype=np.uint64)], True
    for token_ids, starts in pieces:
        distinct, of = np.unique(token_ids, return_inverse=True)
        texts = tokenizer.texts_of(distinct.tolist())
        letters = [b"" if _PART in text else _letters_of(text) for text in texts]
        ends = np.cumsum([0, *np.array([*map(len, letters)], dtype=np.int64)[of]])
        parts = np.flatnonzero(np.array([_PART in text for text in texts], dtype=bool)[of])
        # The tokens in front of the first part of a character, and those behind the last one.
        until = np.minimum(np.append(parts, len(of))[np.searchsorted(parts, starts)], starts + length)
        behind = np.maximum(np.append(-1, parts)[np.searchsorted(parts, starts + length)] + 1, starts)
        nums = ends[until] - ends[starts], ends[starts + length] - ends[behind]
        places, of_run = np.where(nums[0] >= nums[1], ends[starts], ends[behind]), np.maximum(*nums)
        times = np.minimum(of_run // length, _MOST_TIMES)
        is_whole &= bool(times.all())
        places, of_run, times = places[times > 0], of_run[times > 0], times[times > 0]
        hashes = RunHashes(_numbers(b"".join([letters[i] for i in of.tolist()])))
        firsts, wholes = hashes.of(places, times * length), hashes.of(places, of_run)
        found.append(np.column_stack([firsts, wholes, of_run.astype(np.uint64)]))
    firsts, wholes, nums_of = np.unique(np.concatenate(found), axis=0).T
    distinct, begins = np.unique(firsts, return_index=True)
    index, begins = HashIndex.of(np.asarray(distinct, dtype=np.uint64)), np.append(begins, len(firsts))
    return RunLetters(index, begins, nums_of.astype(np.int64), wholes.copy(), length, tokenizer, is_whole)


def _spells(tokenizer: PlainTokenizer, character: str) -> bool:
    """Whether the tokenizer leaves a character as it is, whatever stands beside it; only ASCII is tried there."""
    if not f"a{character}".lower().endswith(character.lower()):
        return False  # its lower case is another one at the end of a word
    text = " ".join(f"{character}{sign}{character} {sign}" for sign in _SIGNS)
    ids = tokenizer.ids_of(text)
    each = tokenizer.texts_of(ids)
    is_same = _letters_of(tokenizer.text_of(ids)) == _letters_of(text)
    return is_same and (any(_PART in one for one in each) or _letters_of("".join(each)) == _letters_of(text))


def _letters_of(text: str) -> bytes:
    return "".join(text.lower().split()).encode("utf-8", "surrogatepass")


def _numbers(letters: bytes) -> npt.NDArray[np.uint64]:
    return np.frombuffer(letters, np.uint8).astype(np.uint64)
