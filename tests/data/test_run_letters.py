"""A text that has a run of tokens is never ruled out by its letters; nearly all others are."""

import pickle
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from sft.data.plain_tokenizer import PlainTokenizer
from sft.data.planning.run_letters import RunLetters, letters_of_runs

LENGTH = 4
WORDS = ["sort", "Sort", "the ", "numbers", "NUMBERS", " 12", "3", "``", "…", "ﬁ", "é", "e\u0301", "Σ", "İ", "\u212a"]
WORDS += ["“", "”", "海", "岸", "\U0001f600", "\xa0", "\u2028", "\x1c", "\x07", "\n", "  "]
TEXTS = st.lists(st.sampled_from(WORDS), max_size=14).map("".join)


def byte_level(normalizer: object = None) -> PlainTokenizer:
    """Pieces of words, and parts of all characters that are rare."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    if normalizer is not None:
        backend.normalizer = normalizer
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False)
    backend.train_from_iterator([" ".join(WORDS[:7] + ["海岸", "“a”"]) + " sorting"] * 5, trainer)
    return PlainTokenizer(backend)


TOKENIZERS = {
    "as it is": byte_level(),
    "composed": byte_level(normalizers.NFC()),
    "spelled otherwise": byte_level(normalizers.NFKC()),
    "without accents": byte_level(normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents()])),
    "lower case": byte_level(normalizers.Lowercase()),
}


def said(tokenizer: PlainTokenizer, text: str) -> tuple[list[int], list[str]]:
    """The tokens that say something, and what (see `sft.data.token_keys`)."""
    ids = tokenizer.ids_of(text)
    raw = [tokenizer._backend.id_to_token(i) for i in ids]
    each = [
        token if "\ufffd" in one else one.strip().lower()
        for one, token in zip(tokenizer.texts_of(ids), raw, strict=True)
    ]
    return [i for i, one in zip(ids, each, strict=True) if one], [one for one in each if one]


def runs_of(each: Sequence[str]) -> set[tuple[str, ...]]:
    return {tuple(each[i : i + LENGTH]) for i in range(len(each) - LENGTH + 1)}


def letters_of(tokenizer: PlainTokenizer, texts: Sequence[str]) -> RunLetters | None:
    pieces = [np.array(said(tokenizer, text)[0], dtype=np.int64) for text in texts]
    found = ((ids, np.arange(max(0, len(ids) - LENGTH + 1))) for ids in pieces)
    return letters_of_runs(found, LENGTH, tokenizer)


@pytest.mark.parametrize("name", TOKENIZERS)
@settings(max_examples=12, deadline=None)
@given(held_out=st.lists(TEXTS, max_size=3), text=TEXTS, other=TEXTS)
def test_a_text_that_has_a_run_is_not_ruled_out(name: str, held_out: list[str], text: str, other: str) -> None:
    tokenizer = TOKENIZERS[name]
    letters = letters_of(tokenizer, held_out)
    assert letters is not None
    runs = {run for one in held_out for run in runs_of(said(tokenizer, one)[1])}
    texts = [text, "", *(f"{other}{one}{text}" for one in held_out), *(one.upper() for one in held_out), other]
    has = [bool(runs_of(said(tokenizer, one)[1]) & runs) for one in texts]
    may_have = letters.may_have(texts).tolist()
    assert [a and not b for a, b in zip(has, may_have, strict=True)] == [False] * len(texts)
    assert pickle.loads(pickle.dumps(letters)).may_have(texts).tolist() == may_have


def test_texts_without_a_run_are_ruled_out_even_with_signs_that_ascii_has_not() -> None:
    letters = letters_of(TOKENIZERS["as it is"], ["Sort the numbers “upwards” by their size"])
    assert letters is not None
    texts = ["a “so” is no poem", "sort  THE\nnumbers “upwards”, please", "write a poem — now"]
    assert letters.may_have(texts).tolist() == [False, True, False]
    assert letters.may_have([]).tolist() == []


def test_a_tokenizer_that_spells_parts_of_words_in_its_own_way_tells_nothing() -> None:
    vocab = {token: i for i, token in enumerate(["[UNK]", "so", "##rt", "a"])}
    backend = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.Whitespace(), decoders.WordPiece()
    assert letters_of(PlainTokenizer(backend), ["sort a sort a sort"]) is None
