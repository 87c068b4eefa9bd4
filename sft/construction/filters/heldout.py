"""Drops, or counts, drafts that have something of what the model is measured on: held-out examples of the token store.

A draft is touched if its prompt is a held-out one, or if one of its texts has a run of `data.holdout.ngram_tokens`
tokens that a held-out example has and no training example (`sft.data.planning.overlap`). A run that training has, too,
is the wording of a task, or an overlap that `sft prepare` counts without any draft.
"""

from typing import ClassVar, Literal

from sft.construction.filters.filter import Filter, Judge, OfHeldOut, Surroundings
from sft.draft import Draft


class HeldOut(Filter):
    """Overlap with held-out tasks, sources and prompts."""

    name: ClassVar[str] = "heldout"
    shorthand: ClassVar[str] = "mode"

    mode: Literal["remove", "count"] = "remove"
    """`count` keeps them, and says in the manifest how many there are."""

    def begin(self, around: Surroundings) -> Judge:
        """A judge that reads what is held out."""
        return _HeldOutJudge(self.mode, around.of_held_out() if around.of_held_out else lambda draft: None)


class _HeldOutJudge(Judge):
    def __init__(self, mode: str, of_held_out: OfHeldOut) -> None:
        self._mode, self._of_held_out = mode, of_held_out

    def judge(self, draft: Draft) -> str | None:
        """By `remove`."""
        return self._of_held_out(draft) if self._mode == "remove" else None

    def note(self, draft: Draft) -> str | None:
        """By `count`."""
        return self._of_held_out(draft) if self._mode == "count" else None
