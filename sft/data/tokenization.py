"""Turns renderings into examples: the ids of the whole text, and the mask of what is learned.

Learned are the tokens of an answer, from the first that starts inside it through the stop token behind it: the
special token with which the model ends its turn. A token that also covers words of the prompt is context; one that
covers the space before the answer and its first word (SentencePiece) is answer.
The text is tokenized whole, so the ids are those of the tokenizer's own chat template.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from sft.atomic_files import fingerprint
from sft.data.formatting import RecordError
from sft.data.rendering import Rendering
from sft.schema import BoolArray, Example, IntArray


class ExampleTokenizer:
    """Tokenizes renderings in batches (the tokenizer's own threads do the work)."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """`tokenizer` is a fast one with its chat template set."""
        backend: Any = tokenizer.backend_tokenizer
        # Padding and truncation that the tokenizer's file asks for would change the text's ids.
        backend.no_padding()
        backend.no_truncation()
        self._backend = backend
        added = backend.get_added_tokens_decoder()
        stops = {i for i, token in added.items() if token.special} | set(tokenizer.all_special_ids)
        self._stop_ids = np.array(sorted(stops), dtype=np.int64)
        # The largest id, not their number: a vocabulary may have gaps.
        self.token_dtype = np.dtype(np.uint16 if max(tokenizer.get_vocab().values()) < 1 << 16 else np.uint32)
        self.fingerprint = fingerprint([backend.to_str(), tokenizer.chat_template, tokenizer.special_tokens_map])

    def tokenize(self, renderings: Sequence[Rendering]) -> list[Example | RecordError]:
        """An example for each rendering, or the reason why there is none."""
        encodings = self._backend.encode_batch([r.text for r in renderings], add_special_tokens=False)
        return [self._to_example(r, e) for r, e in zip(renderings, encodings, strict=True)]

    def _to_example(self, rendering: Rendering, encoding: Any) -> Example | RecordError:
        ids = np.array(encoding.ids, dtype=np.int64)
        offsets = np.array(encoding.offsets, dtype=np.int64).reshape(-1, 2)
        is_stop = np.isin(ids, self._stop_ids)
        loss_mask = np.zeros(len(ids), dtype=bool)
        for start, end in rendering.answers:
            first, behind = np.searchsorted(offsets[:, 0], (start, end))
            if first and offsets[first - 1, 1] > start and rendering.text[offsets[first - 1, 0] : start].isspace():
                first -= 1
            stop = _find_stop(rendering.text, offsets, is_stop, int(behind))
            if stop is None:
                return RecordError(
                    "the chat template writes no stop token behind the answer, so the model would not learn to stop\n"
                    f"      behind the answer:   {rendering.text[end : end + 40]!r}\n"
                    "      Needed: a template that ends an answer with the tokenizer's end-of-turn token, with only\n"
                    "      white space between. Choose another with model.chat_template."
                )
            loss_mask[first : stop + 1] = True
        if loss_mask[0]:
            return RecordError("the chat template starts with the answer: there is nothing to predict it from")
        return Example(ids.astype(self.token_dtype), loss_mask)


def _find_stop(text: str, offsets: IntArray, is_stop: BoolArray, behind: int) -> int | None:
    """The first special token at or after `behind`, if nothing but white space lies before it."""
    for i in range(behind, len(is_stop)):
        if is_stop[i]:
            return i
        if text[offsets[i, 0] : offsets[i, 1]].strip():
            return None
    return None
