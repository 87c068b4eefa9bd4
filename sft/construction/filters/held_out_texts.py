"""Reads from a token store what is held out, and tells which drafts and texts have something of it."""

from collections.abc import Callable

import numpy as np

from sft.config import HoldoutConfig
from sft.construction.filters.draft_parts import UNREADABLE, conversation_of
from sft.construction.filters.filter import OfHeldOut
from sft.data.duplicates import hash_record
from sft.data.planning.holdout import held_out_examples
from sft.data.planning.overlap import held_out_runs
from sft.data.token_store import TokenStore
from sft.data.tokenization import ExampleTokenizer
from sft.draft import Draft


def read_held_out(store: TokenStore, holdout: HoldoutConfig, tokenizer: ExampleTokenizer) -> OfHeldOut:
    """What tells drafts that touch the held-out examples of a store.

    Raises:
        UserError: a held-out task of the config is not in the data.
    """
    held_out = held_out_examples(store, holdout)
    prompts = {*np.asarray(store.prompt_hashes)[held_out].tolist()}
    touches = read_held_out_runs(store, holdout, tokenizer)

    def of_held_out(draft: Draft) -> str | None:
        conversation = conversation_of(draft)
        if conversation is None:
            return UNREADABLE
        if hash_record(conversation).prompt in prompts:
            return "its prompt is a held-out one"
        if any(touches(message.full_text) for message in conversation.messages):
            return f"it shares {holdout.ngram_tokens} tokens in a row with a held-out example"
        return None

    return of_held_out


def read_held_out_runs(store: TokenStore, holdout: HoldoutConfig, tokenizer: ExampleTokenizer) -> Callable[[str], bool]:
    """What tells texts that have a run of tokens which held-out examples have and training examples have not.

    Raises:
        UserError: a held-out task of the config is not in the data.
    """
    runs = held_out_runs(store, held_out_examples(store, holdout), holdout.ngram_tokens)
    return lambda text: bool(runs.touch(np.array(tokenizer.ids_of(text), dtype=np.int64)))
