"""Texts → token ids, and nothing else: what a process gets that only compares texts, without templates and models."""

from collections.abc import Sequence
from typing import Any


class PlainTokenizer:
    """Tokenizes texts as they are. It can be pickled."""

    def __init__(self, backend: Any) -> None:
        """`backend` is a `tokenizers.Tokenizer` that neither pads nor cuts."""
        self._backend = backend

    def ids_of(self, text: str) -> list[int]:
        """The ids of a text, without any that the tokenizer would add."""
        return self.ids_of_each([text])[0]

    def ids_of_each(self, texts: Sequence[str]) -> list[list[int]]:
        """Those of many texts. Where tokens stand in them is not asked for: it would take a quarter more time."""
        return [encoding.ids for encoding in self._backend.encode_batch_fast([*texts], add_special_tokens=False)]
