"""Drops, or counts, drafts that have something of what the model is measured on: held-out examples of the token store.

A draft is touched if its prompt is a held-out one, or if one of its texts has a run of `data.holdout.ngram_tokens`
tokens that a held-out example has and no training example (`sft.data.planning.overlap`). A run that training has, too,
is the wording of a task, or an overlap that `sft prepare` counts without any draft.
"""

from typing import ClassVar, Literal

import numpy as np

from sft.config import HoldoutConfig
from sft.construction.filters.draft_parts import UNREADABLE, conversation_of
from sft.construction.filters.filter import Filter, Judge, OfHeldOut, Surroundings
from sft.data.duplicates import hash_record
from sft.data.planning.holdout import held_out_examples
from sft.data.planning.overlap import held_out_runs
from sft.data.token_store import TokenStore
from sft.data.tokenization import ExampleTokenizer
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


def read_held_out(store: TokenStore, holdout: HoldoutConfig, tokenizer: ExampleTokenizer) -> OfHeldOut:
    """What tells drafts that touch the held-out examples of a store.

    Raises:
        UserError: a held-out task of the config is not in the data.
    """
    held_out = held_out_examples(store, holdout)
    prompts = {*np.asarray(store.prompt_hashes)[held_out].tolist()}
    runs = held_out_runs(store, held_out, holdout.ngram_tokens)

    def of_held_out(draft: Draft) -> str | None:
        conversation = conversation_of(draft)
        if conversation is None:
            return UNREADABLE
        if hash_record(conversation).prompt in prompts:
            return "its prompt is a held-out one"
        texts = [message.full_text for message in conversation.messages]
        if any(runs.touch(np.array(tokenizer.ids_of(text), dtype=np.int64)) for text in texts):
            return f"it shares {holdout.ngram_tokens} tokens in a row with a held-out example"
        return None

    return of_held_out
