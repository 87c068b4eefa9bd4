"""The text of each token without case and surrounding white space, as a hash, so that texts can be compared by ids."""

import hashlib
from typing import Any

import numpy as np
import numpy.typing as npt

CONTROL = 1
"""The key of control tokens; every token with text has a larger key."""


def token_keys(tokenizer: Any) -> npt.NDArray[np.uint64]:
    """For each token id, (num_ids,), a hash of its text: 0 for white space, `CONTROL` for control tokens.

    A token that is part of a character counts by its bytes; an id without a token counts as white space.
    """
    # A process that only compares keys needs no templates, whose imports take seconds.
    from sft.data.rendering.chat_template import control_ids  # noqa: PLC0415

    vocab = tokenizer.get_vocab()
    keys = np.zeros(max(vocab.values()) + 1, dtype=np.uint64)
    keys[control_ids(tokenizer)] = CONTROL
    spelled = [(token, i) for token, i in vocab.items() if keys[i] != CONTROL]
    texts = tokenizer.backend_tokenizer.decode_batch([[i] for _, i in spelled], skip_special_tokens=False)
    for (token, i), text in zip(spelled, texts, strict=True):
        said = token if "\ufffd" in text else text.strip().lower()
        if said:
            digest = hashlib.sha256(said.encode("utf-8", "surrogatepass")).digest()
            keys[i] = max(int.from_bytes(digest[:8], "big"), CONTROL + 1)
    return keys
