"""Looks for the copies that `sft.construction.filters.copies` drops."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from sft.construction.filters.compared_words import ComparedWords
from sft.construction.filters.draft_parts import (
    UNREADABLE,
    DraftParts,
    conversation_of_seed,
    text_evidence,
    without_system,
)
from sft.construction.filters.filter import Judge, Late, Look, Surroundings
from sft.construction.filters.near_copies import NearCopies
from sft.construction.offset_table import OffsetTable
from sft.construction.prompt_pool import PromptPool, rouge_l_with
from sft.construction.recipes.recipe import Seed
from sft.data.duplicates import RecordHashes, hash_record, minhash
from sft.draft import Draft
from sft.schema import Conversation


class Compared(NamedTuple):
    """What a draft is compared by."""

    hashed: RecordHashes
    words: list[str]
    """Empty where prompts may be alike."""
    signature: bytes
    """Empty where records may be nearly equal."""
    similarity: float | None
    """ROUGE-L with the nearest seed that its teacher was shown; None where it has none, or is to be like it."""


class CopyLook(Look):
    """Sees what drafts are compared by."""

    def __init__(self, words: ComparedWords | None, seeds: Sequence[tuple[str, Seed]], *, with_signature: bool) -> None:
        """`words`: None where prompts may be alike."""
        self._words, self._with_signature = words, with_signature
        self._seeds = {} if words is None else {seed.id: words.of_prompt(seed.prompt, task) for task, seed in seeds}

    def see(self, parts: DraftParts) -> Compared | None:
        """None where training could not read it."""
        if parts.conversation is None:
            return None
        words = self._words.of(parts.draft) if self._words is not None else []
        signature = b""
        if self._with_signature:
            signature = minhash(without_system(_without_passage(parts.conversation, parts.draft))).tobytes()
        similarity = None if _is_to_be_like(parts.draft) else self._similarity(words, parts.draft.provenance.seeds)
        return Compared(parts.hashed, words, signature, similarity)

    def _similarity(self, words: list[str], seeds: Sequence[str]) -> float | None:
        likeness = rouge_l_with(words)
        found = [likeness(shown) for seed in seeds if (shown := self._seeds.get(seed))]
        return round(max(found), 3) if words and found else None


class CopyJudge(Judge):
    """Remembers what is kept."""

    def __init__(self, likeness: float | None, near: float | None, around: Surroundings) -> None:
        """`likeness` by ROUGE-L, `near` by MinHash; None: not looked at."""
        words = ComparedWords(around.seeds)
        self._trained = around.trained_prompts
        self._equal, self._whole, self._num_seeds = OffsetTable(), OffsetTable(), len(around.seeds)
        self._pool = PromptPool(likeness) if likeness else None
        self._similarity, self._near = near, NearCopies(around.scratch / "near") if near else None
        for number, (task, seed) in enumerate(around.seeds):
            conversation = conversation_of_seed(seed, task)
            hashed = hash_record(conversation)
            self._equal.add(hashed.prompt, number)
            self._whole.add(hashed.content, number)
            if self._pool is not None:
                self._pool.add(words.of_prompt(seed.prompt, task))
            if self._near:
                self._near.add(minhash(without_system(conversation)).tobytes())
        self._num_kept = 0
        self._may_be_near = bytearray()
        self._scores: dict[str, float] = {}

    def judge(self, draft: Draft, seen: Compared | None) -> str | None:
        """Against seeds, training data, and the drafts that are kept so far.

        A draft that answers a seed's own prompt (`prompt_of`), has another wording of it (`wording_of`), or has its
        answer (`answer_of`) is to be like the seed in this.
        """
        self._scores = {} if seen is None or seen.similarity is None else {"similarity": seen.similarity}
        if seen is None:
            return UNREADABLE
        if text_evidence(draft, "prompt_of"):
            number = next(self._whole.find(seen.hashed.content), None)
            return None if number is None else f"it equals {self._of(number)}"
        number = next(self._equal.find(seen.hashed.prompt), None)
        if number is not None:
            return f"its prompt equals that of {self._of(number)}"
        if self._trained is not None and _is_in(self._trained, seen.hashed.prompt):
            return "its prompt equals that of a training record"
        is_like = text_evidence(draft, "wording_of")
        if self._pool is not None and not is_like and seen.words:
            number = self._pool.find(seen.words)
            if number is not None:
                return f"its prompt is like that of {self._of(number)} (ROUGE-L)"
        return None

    def scores(self, draft: Draft) -> Mapping[str, float]:
        """How near it is to what its teacher was shown."""
        del draft
        return self._scores

    def keep(self, draft: Draft, seen: Compared) -> None:
        """Remember it."""
        is_to_be_like = _is_to_be_like(draft)
        self._equal.add(seen.hashed.prompt, self._num_seeds + self._num_kept)
        if is_to_be_like:
            self._whole.add(seen.hashed.content, self._num_seeds + self._num_kept)
        self._num_kept += 1
        if self._pool is not None:
            self._pool.add(seen.words)
        if self._near:
            self._near.add(seen.signature)
            self._may_be_near.append(is_to_be_like)

    def finish(self) -> Late | None:
        """Near copies."""
        if not self._near or not self._similarity:
            return None
        found = self._near.find(self._similarity)[self._num_seeds :]
        dropped = found & ~np.frombuffer(self._may_be_near, dtype=bool)
        return Late("it is nearly equal to a record that is there (MinHash)", dropped)

    def _of(self, number: int) -> str:
        return "a seed" if number < self._num_seeds else "an earlier draft"


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
