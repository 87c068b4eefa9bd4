"""Reads from a token store what is held out, and tells which drafts and texts have something of it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sft.config import HoldoutConfig
from sft.construction.filters.draft_parts import UNREADABLE, DraftParts
from sft.data.plain_tokenizer import PlainTokenizer
from sft.data.planning.holdout import held_out_examples
from sft.data.planning.overlap import HeldOutRuns, held_out_runs
from sft.data.planning.run_letters import RunLetters, letters_of_runs
from sft.data.token_store import TokenStore


@dataclass(frozen=True, slots=True)
class HeldOutTexts:
    """What tells drafts and texts that touch the held-out examples of a store."""

    prompts: frozenset[int]
    """The hashes of all their prompts."""
    runs: HeldOutRuns
    letters: RunLetters | None
    """Of the runs."""
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
        is_touched = [True] * len(texts) if self.letters is None else self.letters.may_have(texts).tolist()
        looked_at = [number for number, may_be in enumerate(is_touched) if may_be]
        ids = self.tokenizer.ids_of_each([texts[number] for number in looked_at])
        for number, touches in zip(looked_at, self.runs.touch(ids).tolist(), strict=True):
            is_touched[number] = touches
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
    runs, num_tokens = held_out_runs(store, held_out, holdout.ngram_tokens), holdout.ngram_tokens
    letters = letters_of_runs(runs.standing_in(store, held_out), num_tokens, tokenizer)
    return HeldOutTexts(prompts, runs, letters, num_tokens, tokenizer)
