"""Drops what is there already: equal prompts, prompts that are alike, and records that are nearly equal.

    equal   the prompt hash of `sft.data.duplicates`, against seeds, all training data and drafts
    alike   ROUGE-L of prompts of at least 0.7, as Self-Instruct (arXiv 2212.10560), against seeds and drafts
    nearly  MinHash of whole records, `sft.data.near_duplicates`, against seeds and drafts, once all are judged

The first in the order of the scripts stays, of those that all other filters keep. Which words of a prompt are compared,
`compared_words` says; of one with few words of its own, only an equal one is a copy. `similarity` in the scores is the
ROUGE-L with the nearest seed that the teacher was shown: who reviews sees first what is near.
"""

from typing import Annotated, ClassVar

from pydantic import Field

from sft.construction.filters.filter import Filter, Judge, Look, Surroundings

Likeness = Annotated[float, Field(gt=0.0, le=1.0)]


class Copies(Filter):
    """Copies of seeds, of training data and of each other."""

    name: ClassVar[str] = "copies"
    shorthand: ClassVar[str] = "similarity_to_existing"

    similarity_to_existing: Likeness | None = 0.7
    """The ROUGE-L at which a prompt is a copy. Empty: prompts may be alike."""
    near: Likeness | None = 0.8
    """The share of runs of five words in common at which a record is a copy. Empty: they may be nearly equal."""

    def look(self, around: Surroundings) -> Look:
        """It sees what drafts are compared by."""
        from sft.construction.filters.compared_words import ComparedWords  # noqa: PLC0415  (as below)
        from sft.construction.filters.copy_judge import CopyLook  # noqa: PLC0415

        words = None if self.similarity_to_existing is None else ComparedWords(around.seeds)
        return CopyLook(words, around.seeds, with_signature=self.near is not None)

    def begin(self, around: Surroundings) -> Judge:
        """A judge that remembers what is kept."""
        from sft.construction.filters.copy_judge import CopyJudge  # noqa: PLC0415  (a config is read without it)

        return CopyJudge(self.similarity_to_existing, self.near, around)
