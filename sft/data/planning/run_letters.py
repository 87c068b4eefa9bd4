"""Which texts may have one of some runs of tokens, told from their letters: tokenizing takes much longer.

Tokens that say the same have the same letters: what they say without white space. So a text that has a run has all of
the run's letters, one behind the other, and its first ones are enough to rule out nearly all texts without it.

    tokens of a run ──▶ hash of its first letters, up to four times as many as it has tokens ──▶ HashIndex
    text ──▶ its letters ──▶ hashes of all places, for each of these numbers: is one in the index?

Invariant: a text that has a run is never ruled out. This holds for texts of ASCII, and where the tokenizer neither drops
nor changes such letters, which is tried. All others may have a run.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from string import ascii_letters, digits, punctuation

import numpy as np
import numpy.typing as npt

from sft.data.plain_tokenizer import PlainTokenizer
from sft.data.planning.hash_index import HashIndex
from sft.data.planning.run_hashes import RunHashes
from sft.schema import BoolArray, IntArray

_MOST_TIMES = 4
_BREAK = b"\n"
"""Between texts: no letter."""
_SIGNS = ascii_letters + digits + punctuation


@dataclass(frozen=True, slots=True)
class RunLetters:
    """The first letters of some runs. It can be pickled."""

    _index: HashIndex
    _length: int

    def may_have(self, texts: Sequence[str]) -> BoolArray:
        """Whether each of some texts may have one of the runs: (num_texts,)."""
        letters = [_plain_letters_of(text) for text in texts]
        may_have = np.array([of is None for of in letters], dtype=bool)
        plain, told = np.flatnonzero(~may_have), [of for of in letters if of is not None]
        ends = np.cumsum([len(of) + len(_BREAK) for of in told])
        hashes = RunHashes(_numbers(_BREAK.join(told)))
        for times in range(1, _MOST_TIMES + 1):
            places, _ = self._index.find(hashes.of_all(times * self._length))
            may_have[plain[np.searchsorted(ends, places, side="right")]] = True
        return may_have


def letters_of_runs(
    pieces: Iterator[tuple[IntArray, IntArray]], length: int, tokenizer: PlainTokenizer
) -> RunLetters | None:
    """The letters of runs of `length` tokens; None if the tokenizer does not spell texts as they are.

    Args:
        pieces: token ids, none of which is white space alone, and the places in them where runs begin.
        length: of a run, in tokens.
        tokenizer: of which they are.
    """
    if not _spells(tokenizer):
        return None
    found = [np.zeros(0, dtype=np.uint64)]
    for token_ids, starts in pieces:
        distinct, of = np.unique(token_ids, return_inverse=True)
        said = [_letters_of(text) for text in tokenizer.texts_of(distinct.tolist())]
        begins = np.cumsum([0, *np.array([*map(len, said)], dtype=np.int64)[of]])
        hashes = RunHashes(_numbers(b"".join([said[i] for i in of.tolist()])))
        places = begins[starts]
        times = np.minimum((begins[starts + length] - places) // length, _MOST_TIMES)
        assert times.min(initial=1) > 0, "each token has a letter"
        found += [hashes.of(places[times == one], one * length) for one in range(1, _MOST_TIMES + 1)]
    return RunLetters(HashIndex.of(np.unique(np.concatenate(found))), length)


def _spells(tokenizer: PlainTokenizer) -> bool:
    """Whether tokens of ASCII have just its letters, whatever stands beside each."""
    texts = [" ".join(f"{one}{other}{one} {other}" for other in _SIGNS) for one in _SIGNS]
    spelled = ["".join(tokenizer.texts_of(ids)) for ids in tokenizer.ids_of_each(texts)]
    return [*map(_letters_of, spelled)] == [*map(_letters_of, texts)]


def _letters_of(text: str) -> bytes:
    return "".join(text.lower().split()).encode("utf-8", "surrogatepass")


def _plain_letters_of(text: str) -> bytes | None:
    """None for a text that has other characters than those of `_SIGNS` and white space."""
    if not text.isascii():
        return None
    letters = b"".join(text.lower().encode().split())
    return letters if letters.decode().isprintable() else None


def _numbers(letters: bytes) -> npt.NDArray[np.uint64]:
    return np.frombuffer(letters, np.uint8).astype(np.uint64)
