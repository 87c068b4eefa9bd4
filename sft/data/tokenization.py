"""Turns renderings into examples: the ids of the whole text, and the mask of what is learned.

The learned tokens of an answer go from the first that starts inside it to the one that ends the turn. A token that also
covers words of the prompt is context; one that covers white space of the prompt and the answer's first word
(SentencePiece) belongs to the answer. The text is tokenized whole, so the ids are those of the tokenizer's own chat
template.

For byte-level BPE, the position of a token follows from the ids alone: each token stands for a fixed number of bytes,
and together they are the text. Other tokenizers return character offsets, which takes longer.
"""

import copy
import json
import unicodedata
from collections.abc import Sequence
from typing import Any, NamedTuple, Self

import numpy as np
from transformers import PreTrainedTokenizerBase

from sft.atomic_files import fingerprint
from sft.data.plain_tokenizer import PlainTokenizer
from sft.data.rendering.answer_spans import Span
from sft.data.rendering.call_forms import shown_tokens
from sft.data.rendering.chat_template import control_ids
from sft.data.rendering.renderer import Rendering
from sft.errors import RecordError
from sft.schema import Example, IntArray
from sft.scoring.call_form import CallForm
from sft.thoughts import USUAL, Marks


class _Placed(NamedTuple):
    """A text and its tokens, with each token's start and end in the text."""

    text: str | bytes
    answers: Sequence[Span]
    ids: IntArray
    starts: IntArray
    ends: IntArray


class ExampleTokenizer:
    """Tokenizes renderings in batches."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """`tokenizer` is a fast one with its chat template set."""
        backend: Any = tokenizer.backend_tokenizer
        # Padding and truncation set in the tokenizer's file would change the text's ids.
        backend.no_padding()
        backend.no_truncation()
        self._backend = backend
        self.plain = PlainTokenizer(backend)
        """It alone."""
        vocab = tokenizer.get_vocab()
        stop_ids = control_ids(tokenizer)
        self.num_ids = max(vocab.values()) + 1  # not the number of tokens: a vocabulary may have gaps
        self._is_stop = np.zeros(self.num_ids, dtype=bool)
        self._is_stop[stop_ids] = True
        self._stop_ids = dict(zip(tokenizer.convert_ids_to_tokens(stop_ids), stop_ids, strict=True))
        self.special_tokens = frozenset(self._stop_ids)
        """The texts of all control tokens, including stop tokens."""
        self.added_tokens = frozenset(str(token) for token in tokenizer.get_added_vocab())
        """The texts of all tokens that were added to the vocabulary, including control tokens."""
        self.token_dtype = np.dtype(np.uint16 if self.num_ids <= 1 << 16 else np.uint32)
        self.fingerprint = fingerprint([backend.to_str(), tokenizer.chat_template, tokenizer.special_tokens_map])
        self._normal_form, self._num_bytes = _byte_lengths(backend, vocab, self.num_ids)
        self._set_marks(USUAL)

    def with_marks(self, marks: Marks, call_form: CallForm | None = None) -> Self:
        """The same for a template that marks thoughts and writes calls so; it starts with the usual marks."""
        other = copy.copy(self)
        other._set_marks(marks, call_form)
        return other

    def _set_marks(self, marks: Marks, call_form: CallForm | None = None) -> None:
        self.marks = marks
        """What stands around thoughts in the words of an answer."""
        self.call_form = call_form
        """How calls are written in them; None if in the usual form, or in one that is not known."""
        self._is_word = ~self._is_stop
        shown = "\n".join((*USUAL, *marks, *shown_tokens(call_form)))
        self._is_word[[i for token, i in self._stop_ids.items() if token and token in shown]] = True

    def ids_of(self, text: str) -> list[int]:
        """The ids of a text that is a whole prompt of the chat template."""
        return self.plain.ids_of(text)

    def text_of(self, ids: Sequence[int]) -> str:
        """The text of tokens, with that of the control tokens."""
        return str(self._backend.decode(list(ids), skip_special_tokens=False))

    def words_of(self, ids: Sequence[int], *, with_marks: bool = True) -> str:
        """The text of tokens without that of the control tokens, and without white space around it.

        The marks of thoughts and calls stay, also where they are control tokens: they say what is the answer, and what
        it calls. A model's vocabulary may be larger than the tokenizer's: such ids have no text.

        Args:
            ids: of an answer.
            with_marks: whether such marks stay. Servers leave them out, as all control tokens.
        """
        is_word = self._is_word if with_marks else ~self._is_stop
        words = [i for i in ids if i < self.num_ids and is_word[i]]
        return str(self._backend.decode(words, skip_special_tokens=False)).strip()

    def tokenize(self, renderings: Sequence[Rendering]) -> list[Example | RecordError]:
        """An example for each rendering, or the reason why there is none."""
        texts = [r.text for r in renderings]
        if self._num_bytes is None:
            encodings = self._backend.encode_batch(texts, add_special_tokens=False)
            placed = [_place_by_offsets(r, e) for r, e in zip(renderings, encodings, strict=True)]
        else:
            encodings = self._backend.encode_batch_fast(texts, add_special_tokens=False)
            placed = [self._place_by_bytes(r, e) for r, e in zip(renderings, encodings, strict=True)]
        return [self._to_example(p) for p in placed]

    def _place_by_bytes(self, rendering: Rendering, encoding: Any) -> _Placed:
        text = rendering.text
        ids = np.array(encoding.ids, dtype=np.int64)
        assert self._num_bytes is not None
        sizes = self._num_bytes[ids]
        ends = sizes.cumsum()
        raw = text.encode()
        whole = len(ids) > 0 and int(ends[-1]) == len(raw)
        if not whole or (self._normal_form and not unicodedata.is_normalized(self._normal_form, text)):
            # Tokens that absorb white space around them, or a normalised text.
            return _place_by_offsets(rendering, self._backend.encode(text, add_special_tokens=False))
        if len(raw) == len(text):
            answers = rendering.answers
        else:
            answers = tuple((len(text[:a].encode()), len(text[:b].encode())) for a, b in rendering.answers)
        return _Placed(raw, answers, ids, ends - sizes, ends)

    def _to_example(self, placed: _Placed) -> Example | RecordError:
        text, answers, ids, starts, ends = placed
        is_stop = self._is_stop[ids]
        loss_mask = np.zeros(len(ids), dtype=bool)
        for start, end in answers:
            first, behind = (int(i) for i in starts.searchsorted((start, end)))
            if first and ends[first - 1] > start and _is_space(text[starts[first - 1] : start]):
                first -= 1
            if is_stop[first:behind].all() and first and ends[first - 1] > start:
                return RecordError("no token covers only the answer: the template's last token swallows it")
            if not is_stop[behind - 1]:
                return RecordError("the tokenizer merges the end of the turn with the text behind it")
            loss_mask[first:behind] = True
        if loss_mask[0]:
            return RecordError("the chat template starts with the answer: there is nothing to predict it from")
        return Example(ids.astype(self.token_dtype), loss_mask)


def _byte_lengths(backend: Any, vocab: dict[str, int], num_ids: int) -> tuple[Any, IntArray | None]:
    """The Unicode form that texts are normalised to, and the bytes of each token; None where tokens are not bytes."""
    parts = json.loads(backend.to_str())
    model, normalizer, splitter = parts["model"], parts["normalizer"], parts["pre_tokenizer"] or {}
    last = splitter.get("pretokenizers", [splitter])[-1]
    is_byte_level = model["type"] == "BPE" and last.get("type") == "ByteLevel" and not last["add_prefix_space"]
    has_extras = model.get("continuing_subword_prefix") or model.get("end_of_word_suffix") or model.get("byte_fallback")
    forms = {"NFC", "NFD", "NFKC", "NFKD"}
    if not is_byte_level or has_extras or (normalizer is not None and normalizer["type"] not in forms):
        return None, None
    added = {token["content"] for token in parts["added_tokens"]}
    num_bytes = np.zeros(num_ids, dtype=np.int64)
    for token, i in vocab.items():
        # In the vocabulary, each byte is spelled as one character.
        num_bytes[i] = len(token.encode()) if token in added else len(token)
    return (normalizer["type"] if normalizer else None), num_bytes


def _place_by_offsets(rendering: Rendering, encoding: Any) -> _Placed:
    offsets = np.array(encoding.offsets, dtype=np.int64).reshape(-1, 2)
    ids = np.array(encoding.ids, dtype=np.int64)
    return _Placed(rendering.text, rendering.answers, ids, offsets[:, 0], offsets[:, 1])


def _is_space(text: str | bytes) -> bool:
    return not _shown(text).strip()


def _shown(text: str | bytes) -> str:
    return text if isinstance(text, str) else text.decode("utf-8", "replace")
