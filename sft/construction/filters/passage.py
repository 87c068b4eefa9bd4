"""Drops answers that the passage does not hold, of drafts that were made from a document."""

import re
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from sft.construction.filters.draft_parts import DraftParts, answer_of, text_evidence
from sft.construction.filters.filter import Look, Surroundings, Verifier
from sft.scoring.words import words_and_numbers_of

_DIGIT = re.compile(r"\d")


class Passage(Verifier):
    """Whether the answer stands in its `passage`, or is made of its words."""

    name: ClassVar[str] = "passage"
    shorthand: ClassVar[str] = "mode"

    mode: Literal["contained", "supported"] = "supported"
    """`contained`: all words of the answer in a row. `supported`: enough of its words, and every number."""
    at_least: Annotated[float, Field(gt=0.0, le=1.0)] = 0.6
    """For `supported`: the share of the answer's different words that the passage or the prompt has."""

    def look(self, around: Surroundings) -> Look:
        """By its settings alone."""
        return _PassageLook(self)


class _PassageLook(Look):
    def __init__(self, passage: Passage) -> None:
        self._given = passage

    def see(self, parts: DraftParts) -> str | None:
        """By words, whatever case and punctuation."""
        draft = parts.draft
        given, passage = self._given, text_evidence(draft, "passage")
        if not passage.strip():
            return "it has no passage" if given.required else None
        told, said = words_and_numbers_of(passage), words_and_numbers_of(answer_of(draft))
        if not said:
            return "the answer has no words"
        if given.mode == "contained":
            # Words hold no spaces, so this compares whole words in a row.
            return None if f" {' '.join(said)} " in f" {' '.join(told)} " else "the answer is not in its passage"
        asked = words_and_numbers_of(
            "\n".join(str(m.get("content")) for m in draft.messages if m.get("role") == "user")
        )
        words, known = {*said}, {*told, *asked}
        if any(_DIGIT.search(word) for word in words - known):
            return "the answer has a number that is not in its passage"
        if len(words & known) < given.at_least * len(words):
            return "the answer is not supported by its passage"
        return None
