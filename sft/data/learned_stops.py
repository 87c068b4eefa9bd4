"""Which control tokens end the answers that a store teaches, and so end the answers of a model trained on it."""

from collections.abc import Sequence

import numpy as np

from sft.data.token_store import TokenStore

_BLOCK_TOKENS = 1 << 24


def learned_stop_ids(store: TokenStore, control_ids: Sequence[int]) -> tuple[int, ...]:
    """The control tokens that are the last learned token of an answer, the most frequent first.

    Rows that came as token ids may end their answers in a word, which is not a stop token.
    """
    counts = np.zeros(len(store.token_keys), dtype=np.int64)
    ends = np.asarray(store.offsets[1:]) - 1
    for start in range(0, len(store.loss_mask), _BLOCK_TOKENS):
        stop = min(start + _BLOCK_TOKENS, len(store.loss_mask))
        learned = np.zeros(stop - start + 1, dtype=bool)
        learned[: len(store.loss_mask[start : stop + 1])] = store.loss_mask[start : stop + 1]
        is_last = learned[:-1] & ~learned[1:]
        first, behind = np.searchsorted(ends, (start, stop))
        at_end = ends[first:behind] - start
        is_last[at_end] = learned[at_end]
        np.add.at(counts, np.asarray(store.tokens[start:stop])[is_last], 1)
    found = [i for i in control_ids if i < len(counts) and counts[i]]
    return tuple(sorted(found, key=lambda i: (-counts[i], i)))
