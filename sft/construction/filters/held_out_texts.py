"""Reads from a token store what is held out, and tells which drafts and texts have something of it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sft.config import HoldoutConfig
from sft.construction.filters.draft_parts import UNREADABLE, DraftParts
from sft.data.plain_tokenizer import PlainTokenizer
from sft.data.planning.holdout import held_out_examples
from sft.data.planning.overlap import HeldOutRuns, held_out_runs
from sft.data.token_store import TokenStore


@dataclass(frozen=True, slots=True)
class HeldOutTexts:
    """What tells drafts and texts that touch the held-out examples of a store."""

    prompts: frozenset[int]
    """The hashes of all their prompts."""
    runs: HeldOutRuns
    num_tokens: int
    """Of a run."""
    tokenizer: PlainTokenizer

    def of(self, drafts: Sequence[DraftParts]) -> list[str | None]:
        """What each has in common with a held-out example, in words."""
        why = [self._at_a_glance(parts) for parts in drafts]
        texts = [
            (number, message.full_text)
            for number, parts in enumerate(drafts)
            if why[number] is None and parts.conversation is not None
            for message in parts.conversation.messages
        ]
        for (number, _), is_touched in zip(texts, self.touches([text for _, text in texts]), strict=True):
            if is_touched:
                why[number] = f"it shares {self.num_tokens} tokens in a row with a held-out example"
        return why

    def touches(self, texts: Sequence[str]) -> list[bool]:
        """Whether each has a run of tokens which held-out examples have and training examples have not."""
        is_touched: list[bool] = self.runs.touch(self.tokenizer.ids_of_each(texts)).tolist()
        return is_touched

    def _at_a_glance(self, parts: DraftParts) -> str | None:
        if parts.conversation is None:
            return UNREADABLE
        return "its prompt is a held-out one" if parts.hashed.prompt in self.prompts else None


def read_held_out(store: TokenStore, holdout: HoldoutConfig, tokenizer: PlainTokenizer) -> HeldOutTexts:
    """What tells drafts and texts that touch the held-out examples of a store.

    Raises:
        UserError: a held-out task of the config is not in the data.
    """
    held_out = held_out_examples(store, holdout)
    prompts = frozenset(np.asarray(store.prompt_hashes)[held_out].tolist())
    return HeldOutTexts(prompts, held_out_runs(store, held_out, holdout.ngram_tokens), holdout.ngram_tokens, tokenizer)
