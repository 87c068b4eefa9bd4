"""Looks for the copies that `sft.construction.filters.copies` drops."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from sft.construction.filters.compared_words import ComparedWords
from sft.construction.filters.draft_parts import UNREADABLE, conversation_of, conversation_of_pair
from sft.construction.filters.filter import Judge, Late, Surroundings
from sft.construction.offset_table import OffsetTable
from sft.construction.prompt_pool import PromptPool
from sft.data.duplicates import NUM_PERMUTATIONS, hash_record, minhash
from sft.data.near_duplicates import Signatures, find_near_duplicates
from sft.draft import Draft

_SIGNATURES_AT_ONCE = 1 << 12


class CopyJudge(Judge):
    """Remembers what is kept."""

    def __init__(self, likeness: float | None, near: float | None, around: Surroundings) -> None:
        """`likeness` by ROUGE-L, `near` by MinHash; None: not looked at."""
        self._words = ComparedWords(around.seeds)
        self._trained = around.trained_prompts
        self._equal, self._num_seeds = OffsetTable(), len(around.seeds)
        self._pool = PromptPool(likeness) if likeness else None
        self._near = _NearCopies(near, around.scratch) if near else None
        for number, (task, seed) in enumerate(around.seeds):
            conversation = conversation_of_pair(seed.prompt, seed.answer, task)
            self._equal.add(hash_record(conversation).prompt, number)
            if self._pool is not None:
                self._pool.add(self._words.of_prompt(seed.prompt, task))
            if self._near:
                self._near.add(minhash(conversation))
        self._num_kept = 0

    def judge(self, draft: Draft) -> str | None:
        """Against seeds, training data, and the drafts that are kept so far."""
        conversation = conversation_of(draft)
        if conversation is None:
            return UNREADABLE
        hashed = hash_record(conversation).prompt
        number = next(self._equal.find(hashed), None)
        if number is not None:
            return f"its prompt equals that of {self._of(number)}"
        if self._trained is not None and _is_in(self._trained, hashed):
            return "its prompt equals that of a training record"
        if self._pool is not None and (words := self._words.of(draft)):
            number = self._pool.find(words)
            if number is not None:
                return f"its prompt is like that of {self._of(number)} (ROUGE-L)"
        return None

    def keep(self, draft: Draft) -> None:
        """Remember it."""
        conversation = conversation_of(draft)
        assert conversation is not None, "it was judged"
        self._equal.add(hash_record(conversation).prompt, self._num_seeds + self._num_kept)
        self._num_kept += 1
        if self._pool is not None:
            self._pool.add(self._words.of(draft))
        if self._near:
            self._near.add(minhash(conversation))

    def finish(self) -> Late | None:
        """Near copies."""
        if not self._near:
            return None
        return Late("it is nearly equal to a record that is there (MinHash)", self._near.find()[self._num_seeds :])

    def _of(self, number: int) -> str:
        return "a seed" if number < self._num_seeds else "an earlier draft"


class _NearCopies:
    """Signatures in a file, in the order in which they are added."""

    def __init__(self, similarity: float, scratch: Path) -> None:
        self._similarity, self._scratch = similarity, scratch / "near"
        self._scratch.mkdir()
        self._path, self._num = scratch / "signatures", 0
        self._file = self._path.open("wb")

    def add(self, signature: Signatures) -> None:
        self._file.write(np.ascontiguousarray(signature, np.uint32).data)
        self._num += 1

    def find(self) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        """True for each that is nearly equal to an earlier one that stays: (num_signatures,)."""
        self._file.close()
        if not self._num:
            return np.zeros(0, dtype=bool)
        everyone = np.ones(self._num, dtype=bool)
        firsts = find_near_duplicates(self._read, everyone, self._similarity, self._scratch)
        return np.asarray(firsts != np.arange(self._num))

    def _read(self) -> Iterator[Signatures]:
        with self._path.open("rb") as file:
            while piece := file.read(_SIGNATURES_AT_ONCE * NUM_PERMUTATIONS * 4):
                yield np.frombuffer(piece, np.uint32).reshape(-1, NUM_PERMUTATIONS)


def _is_in(ordered: np.ndarray[tuple[int], np.dtype[np.uint64]], hashed: int) -> bool:
    place = int(np.searchsorted(ordered, np.uint64(hashed)))
    return place < len(ordered) and int(ordered[place]) == hashed
