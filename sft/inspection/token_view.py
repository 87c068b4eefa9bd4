"""From an example's ids and mask to readable tokens: the text of each token, and its role in the loss.

Invariant: no token is hidden, and the texts in a row are the text of the example. Characters without a glyph are
spelled out: a line break as `↵` and the break, two or more spaces as `··`, other invisible characters by their number
(`⟨U+200B⟩`). If a character is split over tokens, its bytes are shown as `⟨E2⟩⟨80⟩⟨99⟩’`, with the character behind its
last byte.
"""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from transformers import PreTrainedTokenizerBase

from sft.data.rendering.chat_template import control_ids
from sft.data.token_store import TokenStore
from sft.printable import has_no_glyph
from sft.schema import BoolArray, Example, IntArray

Kind = Literal["prompt", "answer", "stop", "special"]
KINDS: tuple[Kind, ...] = get_args(Kind)
KIND_TEXTS: dict[Kind, str] = {
    "prompt": "read, not learned",
    "answer": "learned",
    "stop": "learned: ends the turn",
    "special": "control token, not learned",
}
"""The legend's text for each kind."""


LEARNED: tuple[Kind, ...] = ("answer", "stop")


class ShownToken(NamedTuple):
    """One token, ready to be shown."""

    text: str
    token_id: int
    kind: Kind


@dataclass(frozen=True, slots=True)
class ShownExample:
    """An example of a store, ready to be shown, with its origin."""

    row: int
    task: str
    source: str
    place: str
    tokens: list[ShownToken]
    difficulty: str = ""
    """What is known of how hard it is (`sft score`), in words."""

    @property
    def num_supervised(self) -> int:
        """The number of learned tokens."""
        return sum(token.kind in LEARNED for token in self.tokens)


class TokenView:
    """Shows examples of one tokenizer; remembers the bytes of the tokens it has seen."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """`tokenizer` is a fast one."""
        self.is_special = find_special(tokenizer)
        """(num_ids,): whether an id is a control token, such as those that end a turn."""
        self._backend: Any = tokenizer.backend_tokenizer
        self._added: dict[int, str] = {i: t.content for i, t in self._backend.get_added_tokens_decoder().items()}
        self._style = _byte_style(self._backend)
        self._bytes: dict[int, bytes] = {}

    def show(self, example: Example) -> list[ShownToken]:
        """Every token of the example, in order."""
        ids = example.input_ids.tolist()
        kinds = token_kinds(example, self.is_special)
        texts = shown_texts([self.token_bytes(i) for i in ids])
        return [ShownToken(*token) for token in zip(texts, ids, kinds, strict=True)]

    def read(self, store: TokenStore, row: int, difficulty: str = "") -> ShownExample:
        """An example of a store."""
        task, source = store.tasks[store.task_ids[row]], store.manifest["sources"][store.source_ids[row]]
        return ShownExample(row, task, source, str(store.location(row)), self.show(store.example(row)), difficulty)

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes that the token adds to a text; for a control token its name."""
        if token_id not in self._bytes:
            self._bytes[token_id] = self._look_up(token_id)
        return self._bytes[token_id]

    def _look_up(self, token_id: int) -> bytes:
        if token_id in self._added:
            return self._added[token_id].encode()
        token: str | None = self._backend.id_to_token(token_id)
        if token is None:
            return f"⟨no token {token_id}⟩".encode()
        if self._style == "byte_level":
            return b"".join(bytes([_BYTE_OF[c]]) if c in _BYTE_OF else c.encode() for c in token)
        as_byte = re.fullmatch(r"<0x([0-9A-F]{2})>", token)
        if as_byte:
            return bytes.fromhex(as_byte[1])
        return token.replace("▁", " ").encode()


def find_special(tokenizer: PreTrainedTokenizerBase) -> BoolArray:
    """Which ids are control tokens: (num_ids,), with room for the largest id of the vocabulary."""
    ids = control_ids(tokenizer)
    is_special = np.zeros(max([*tokenizer.get_vocab().values(), *ids]) + 1, dtype=bool)
    is_special[ids] = True
    return is_special


def token_kinds(example: Example, is_special: BoolArray) -> list[Kind]:
    """The role of each token in the loss."""
    codes = example.loss_mask * 1 + known_special(example.input_ids, is_special) * 2
    return [_KIND_OF_CODE[code] for code in codes.tolist()]


def known_special(ids: IntArray, is_special: BoolArray) -> BoolArray:
    """Which of `ids` are control tokens; an id outside the vocabulary is not one."""
    wide = ids.astype(np.int64)
    inside = (wide >= 0) & (wide < len(is_special))
    return np.asarray(is_special[np.where(inside, wide, 0)] & inside)


def shown_texts(tokens: Sequence[bytes]) -> list[str]:
    """The text of each token, given the bytes of all.

    Example: `[b"it", b"\\xe2\\x80", b"\\x99s"]` → `["it", "⟨E2⟩⟨80⟩", "⟨99⟩’s"]`
    """
    num_before = 0  # bytes of the tokens before
    pieces: list[list[str]] = [[] for _ in tokens]
    owners = [i for i, token in enumerate(tokens) for _ in token]
    for char, raw in _characters(b"".join(tokens)):
        first, last = owners[num_before], owners[num_before + len(raw) - 1]
        if char is None or first != last:
            for offset, byte in enumerate(raw):
                pieces[owners[num_before + offset]].append(f"⟨{byte:02X}⟩")
        if char is not None:
            pieces[last].append(char)
        num_before += len(raw)
    return [visible("".join(parts)) for parts in pieces]


def visible(text: str) -> str:
    """`text` with every character without a glyph spelled out; only its line breaks can move a cursor."""
    return _INVISIBLE.sub(lambda found: _spelled(found[0]), text)


def group_kinds(tokens: Sequence[ShownToken]) -> Iterator[tuple[Kind, list[ShownToken]]]:
    """Group neighbouring tokens of the same kind."""
    for kind, run in groupby(tokens, key=lambda token: token.kind):
        yield kind, list(run)


def _characters(raw: bytes) -> Iterator[tuple[str | None, bytes]]:
    """The characters of UTF-8 text with their bytes; None for a byte that belongs to no character."""
    text = raw.decode("utf-8", "surrogateescape")
    for char in text:
        is_stray = 0xDC80 <= ord(char) <= 0xDCFF
        yield (None if is_stray else char), char.encode("utf-8", "surrogateescape")


def _spelled(found: str) -> str:
    if found == "\n":
        return "↵\n"
    if found == "\r":
        return "␍"
    if found == "\t":
        return "⇥\t"
    if found[0] == " ":
        return "·" * len(found)
    return "".join(f"⟨U+{ord(char):04X}⟩" if has_no_glyph(char) else char for char in found)


def _byte_style(backend: Any) -> Literal["byte_level", "pieces"]:
    """How the vocabulary spells bytes: each as one character (GPT-2), or in pieces of text and `<0xE2>`."""
    parts = json.loads(backend.to_str())
    return "byte_level" if '"ByteLevel"' in json.dumps([parts["decoder"], parts["pre_tokenizer"]]) else "pieces"


def _byte_alphabet() -> dict[str, int]:
    """GPT-2's spelling: a printable byte is its own character; the others are those from U+0100 on, in order."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(0x100) if byte not in printable]
    spelled = [*map(chr, printable), *(chr(0x100 + i) for i in range(len(others)))]
    return dict(zip(spelled, [*printable, *others], strict=True))


_INVISIBLE = re.compile(r"\n|\r|\t| {2,}|[^\n\r\t -~]+")
_KIND_OF_CODE: tuple[Kind, ...] = ("prompt", "answer", "special", "stop")
_BYTE_OF = _byte_alphabet()
