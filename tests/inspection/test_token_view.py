"""Every token is shown, its text is the example's, and nothing in it moves a cursor or hides."""

import re
import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from sft.inspection.token_view import TokenView, find_special, shown_texts, token_kinds, visible
from sft.schema import Example
from tests.data.conversations import CONTENTS

MARKS = "⟨⟩·↵⇥␍"


def spelled_back(shown: str) -> str:
    """The text that `shown` spells, by way of the docstring of `token_view`."""
    shown = re.sub(r"⟨[0-9A-F]{2}⟩", "", shown)
    shown = re.sub(r"⟨U\+([0-9A-F]{4,6})⟩", lambda found: chr(int(found[1], 16)), shown)
    return shown.replace("↵\n", "\n").replace("⇥\t", "\t").replace("␍", "\r").replace("·", " ")


def without_marks(text: str) -> bool:
    return not any(mark in text for mark in MARKS)


@pytest.fixture(scope="module")
def tokenizer(tokenizer_dir):
    return AutoTokenizer.from_pretrained(tokenizer_dir("chatml"))


def example_of(ids, learned=()):
    mask = np.zeros(len(ids), dtype=bool)
    mask[list(learned)] = True
    return Example(np.array(ids, dtype=np.uint16), mask)


@given(text=CONTENTS.filter(without_marks))
def test_the_shown_texts_are_the_examples_text(tokenizer, text):
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    shown = TokenView(tokenizer).show(example_of(ids))
    assert [token.token_id for token in shown] == ids
    assert all(token.text for token in shown)
    assert spelled_back("".join(token.text for token in shown)) == text


@given(text=st.text().filter(without_marks), data=st.data())
def test_however_a_text_is_cut_into_tokens_it_reads_the_same(text, data):
    raw = text.encode()
    cuts = sorted(data.draw(st.sets(st.integers(0, len(raw)), max_size=8)) | {0, len(raw)})
    shown = shown_texts([raw[a:b] for a, b in zip(cuts, cuts[1:], strict=False)])
    assert spelled_back("".join(shown)) == text


@given(text=st.text())
def test_nothing_that_is_shown_moves_a_cursor_or_hides(text):
    shown = visible(text).replace("↵\n", "").replace("⇥\t", "")
    assert not [c for c in shown if unicodedata.category(c) in {"Cc", "Cf", "Co", "Cs", "Zl", "Zp"}]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\nb", "a↵\nb"),
        ("a\r\nb", "a␍↵\nb"),
        ("\tif", "⇥\tif"),
        ("a b   c", "a b···c"),
        ("\x1b[31m", "⟨U+001B⟩[31m"),
        ("a\u200bb\u00a0c", "a⟨U+200B⟩b⟨U+00A0⟩c"),
        ("x\u3164\ufe00\U000e0100", "x⟨U+3164⟩⟨U+FE00⟩⟨U+E0100⟩"),
        ("naïve 日本 🙂", "naïve 日本 🙂"),
    ],
)
def test_what_has_no_glyph_is_spelled_out(text, shown):
    assert visible(text) == shown


def test_a_character_split_over_tokens_is_shown_as_bytes_and_behind_the_last():
    assert shown_texts([b"it", b"\xe2\x80", b"\x99s"]) == ["it", "⟨E2⟩⟨80⟩", "⟨99⟩’s"]
    assert shown_texts([b" \xf0\x9f", b"\x99", b"\x82"]) == [" ⟨F0⟩⟨9F⟩", "⟨99⟩", "⟨82⟩🙂"]


def test_bytes_that_make_no_character_are_shown():
    assert shown_texts([b"a\xff", b"\xe2b"]) == ["a⟨FF⟩", "⟨E2⟩b"]


def test_control_tokens_are_shown_and_told_apart(tokenizer):
    text = "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\nyes<|im_end|>\n"
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    stop = tokenizer.convert_tokens_to_ids("<|im_end|>")
    last_stop = len(ids) - 1 - ids[::-1].index(stop)
    num_answer = len(tokenizer("yes", add_special_tokens=False)["input_ids"])
    shown = TokenView(tokenizer).show(example_of(ids, range(last_stop - num_answer, last_stop + 1)))
    by_kind = {}
    for token in shown:
        by_kind[token.kind] = by_kind.get(token.kind, "") + token.text
    assert by_kind == {
        "special": "<|im_start|><|im_end|><|im_start|>",
        "prompt": "user↵\nhi↵\nassistant↵\n↵\n",
        "answer": "yes",
        "stop": "<|im_end|>",
    }


def test_an_id_outside_the_vocabulary_is_shown_as_such(tokenizer):
    token = TokenView(tokenizer).show(example_of([60000]))[0]
    assert (token.text, token.kind) == ("⟨no token 60000⟩", "prompt")
    assert token_kinds(example_of([60000]), find_special(tokenizer)) == ["prompt"]


def test_pieces_with_bytes_are_read_too():
    vocab = {piece: i for i, piece in enumerate(["▁it", "<0xE2>", "<0x80>", "<0x99>", "s", "</s>"])}
    backend = Tokenizer(models.BPE(vocab=vocab, merges=[], byte_fallback=True))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace()])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>")
    shown = TokenView(tokenizer).show(example_of([0, 1, 2, 3, 4, 5], learned=[4, 5]))
    assert [token.text for token in shown] == [" it", "⟨E2⟩", "⟨80⟩", "⟨99⟩’", "s", "</s>"]
    assert [token.kind for token in shown] == ["prompt"] * 4 + ["answer", "stop"]
