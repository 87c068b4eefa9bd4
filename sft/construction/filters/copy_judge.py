"""Looks for the copies that `sft.construction.filters.copies` drops."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from sft.construction.filters.draft_parts import (
    UNREADABLE,
    conversation_of,
    conversation_of_pair,
    prompt_of,
    text_evidence,
)
from sft.construction.filters.filter import Judge, Late, Surroundings
from sft.construction.offset_table import OffsetTable
from sft.construction.prompt_pool import PromptPool
from sft.construction.recipes.recipe import Seed
from sft.data.duplicates import NUM_PERMUTATIONS, hash_record, minhash
from sft.data.near_duplicates import Signatures, find_near_duplicates
from sft.draft import Draft
from sft.schema import Conversation
from sft.scoring.words import words_of

_FEWEST_SEEDS = 4
"""Of a task, so that its wording can be told."""
_FEWEST_OWN_WORDS = 4
_SIGNATURES_AT_ONCE = 1 << 12


class CopyJudge(Judge):
    """Remembers what is kept."""

    def __init__(self, likeness: float | None, near: float | None, around: Surroundings) -> None:
        """`likeness` by ROUGE-L, `near` by MinHash; None: not looked at."""
        self._wordings = wordings_of(around.seeds)
        self._trained = around.trained_prompts
        self._equal, self._whole, self._num_seeds = OffsetTable(), OffsetTable(), len(around.seeds)
        self._pool = PromptPool(likeness) if likeness else None
        self._near = _NearCopies(near, around.scratch) if near else None
        for number, (task, seed) in enumerate(around.seeds):
            conversation = conversation_of_pair(seed.prompt, seed.answer, task)
            hashed = hash_record(conversation)
            self._equal.add(hashed.prompt, number)
            self._whole.add(hashed.content, number)
            if self._pool is not None:
                self._pool.add(self._own_words(seed.prompt, task))
            if self._near:
                self._near.add(minhash(conversation))
        self._num_kept = 0
        self._may_be_near = bytearray()

    def judge(self, draft: Draft) -> str | None:
        """Against seeds, training data, and the drafts that are kept so far.

        A draft that answers a seed's own prompt (`prompt_of`), has another wording of it (`wording_of`), or has its
        answer (`answer_of`) is to be like the seed in this.
        """
        conversation = conversation_of(draft)
        if conversation is None:
            return UNREADABLE
        hashed = hash_record(conversation)
        if text_evidence(draft, "prompt_of"):
            number = next(self._whole.find(hashed.content), None)
            return None if number is None else f"it equals {self._of(number)}"
        number = next(self._equal.find(hashed.prompt), None)
        if number is not None:
            return f"its prompt equals that of {self._of(number)}"
        if self._trained is not None and _is_in(self._trained, hashed.prompt):
            return "its prompt equals that of a training record"
        is_like = text_evidence(draft, "wording_of")
        if self._pool is not None and not is_like and (words := self._compared(draft)):
            number = self._pool.find(words)
            if number is not None:
                return f"its prompt is like that of {self._of(number)} (ROUGE-L)"
        return None

    def keep(self, draft: Draft) -> None:
        """Remember it."""
        conversation = conversation_of(draft)
        assert conversation is not None, "it was judged"
        hashed, is_to_be_like = hash_record(conversation), _is_to_be_like(draft)
        self._equal.add(hashed.prompt, self._num_seeds + self._num_kept)
        if is_to_be_like:
            self._whole.add(hashed.content, self._num_seeds + self._num_kept)
        self._num_kept += 1
        if self._pool is not None:
            self._pool.add(self._compared(draft))
        if self._near:
            self._near.add(minhash(_without_passage(conversation, draft)))
            self._may_be_near.append(is_to_be_like)

    def finish(self) -> Late | None:
        """Near copies."""
        if not self._near:
            return None
        dropped = self._near.find()[self._num_seeds :] & ~np.frombuffer(self._may_be_near, dtype=bool)
        return Late("it is nearly equal to a record that is there (MinHash)", dropped)

    def _of(self, number: int) -> str:
        return "a seed" if number < self._num_seeds else "an earlier draft"

    def _compared(self, draft: Draft) -> list[str]:
        """The words to compare; none where only an equal prompt is a copy."""
        if instruction := text_evidence(draft, "instruction"):
            return words_of(instruction)
        prompt, passage = prompt_of(draft), text_evidence(draft, "passage").strip()
        return self._own_words(prompt.replace(passage, " ") if passage else prompt, draft.task)

    def _own_words(self, prompt: str, task: str) -> list[str]:
        wording = self._wordings.get(task, frozenset())
        words = [word for word in words_of(prompt) if word not in wording]
        return words if len(words) >= _FEWEST_OWN_WORDS else []


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


def wordings_of(seeds: Sequence[tuple[str, Seed]]) -> Mapping[str, frozenset[str]]:
    """Task → the words that more than half of its seeds have; of tasks with few seeds, none."""
    nums, counts = Counter[str](), defaultdict[str, Counter[str]](Counter)
    for task, seed in seeds:
        nums[task] += 1
        counts[task].update({*words_of(seed.prompt)})
    return {
        task: frozenset(word for word, num in counts[task].items() if 2 * num > nums[task])
        for task in nums
        if nums[task] >= _FEWEST_SEEDS
    }


def _is_to_be_like(draft: Draft) -> bool:
    """Whether it has the prompt of a seed, in its own words or in others, or its answer, on purpose."""
    return any(text_evidence(draft, name) for name in ("prompt_of", "wording_of", "answer_of"))


def _without_passage(conversation: Conversation, draft: Draft) -> Conversation:
    """Two questions about a long passage are no copies of each other."""
    passage = text_evidence(draft, "passage").strip()
    if not passage:
        return conversation
    asked = [
        replace(message, content=message.content.replace(passage, " ")) if message.role == "user" else message
        for message in conversation.messages
    ]
    return replace(conversation, messages=tuple(asked))


def _is_in(ordered: np.ndarray[tuple[int], np.dtype[np.uint64]], hashed: int) -> bool:
    place = int(np.searchsorted(ordered, np.uint64(hashed)))
    return place < len(ordered) and int(ordered[place]) == hashed
