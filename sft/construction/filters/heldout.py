"""Drops, or counts, drafts that have something of what the model is measured on: held-out examples of the token store.

A draft is touched if its prompt is a held-out one, or if one of its texts has a run of `data.holdout.ngram_tokens`
tokens that a held-out example has and no training example (`sft.data.planning.overlap`). A run that training has, too,
is the wording of a task, or an overlap that `sft prepare` counts without any draft.
"""

from collections.abc import Sequence
from typing import ClassVar, Literal

from sft.construction.filters.draft_parts import DraftParts
from sft.construction.filters.filter import Filter, Judge, Look, OfHeldOut, Surroundings
from sft.draft import Draft


class HeldOut(Filter):
    """Overlap with held-out tasks, sources and prompts."""

    name: ClassVar[str] = "heldout"
    shorthand: ClassVar[str] = "mode"

    mode: Literal["remove", "count"] = "remove"
    """`count` keeps them, and says in the manifest how many there are."""

    def look(self, around: Surroundings) -> Look | None:
        """By what is held out, which is read now."""
        return None if around.of_held_out is None else _HeldOutLook(around.of_held_out())

    def begin(self, around: Surroundings) -> Judge | None:
        """What is seen decides, or is counted."""
        return _Counting() if self.mode == "count" else None


class _HeldOutLook(Look):
    def __init__(self, of_held_out: OfHeldOut) -> None:
        self._of_held_out = of_held_out

    def see(self, parts: DraftParts) -> str | None:
        """In one draft."""
        return self._of_held_out([parts])[0]

    def see_all(self, drafts: Sequence[DraftParts]) -> Sequence[str | None]:
        """Texts are tokenized together."""
        return self._of_held_out(drafts)


class _Counting(Judge):
    def judge(self, draft: Draft, seen: str | None) -> None:
        """Keep it."""

    def note(self, seen: str | None) -> str | None:
        """Count it."""
        return seen
