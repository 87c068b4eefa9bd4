"""Tokens come one after the other, and are those of an answer in one piece; text that was shown is never taken back."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer

from sft.answering.streaming import AnswerStream, GrowingText
from sft.answering.writing import Prompted, Style, Take, Written, answering, write_answers, write_one
from sft.data.tokenization import ExampleTokenizer

CPU = torch.device("cpu")
PROMPTS = [Prompted(f"p{i}", tuple((5 * i + 7 * j) % 200 + 20 for j in range(4 + i)), 12) for i in range(3)]


@pytest.fixture(scope="module")
def model(tiny_model_dir: Path) -> Any:
    loaded: Any = AutoModelForCausalLM.from_pretrained(tiny_model_dir, dtype=torch.float32)
    with torch.no_grad():
        for parameter in loaded.parameters():
            if parameter.ndim > 1:
                parameter.mul_(6)  # else the prompt hardly matters
    return loaded


def written(model: Any, prompted: Prompted, style: Style, take: Take) -> Written:
    with answering(model, "sdpa"):
        return write_one(model, prompted, style, CPU, "roomy", take)


@pytest.mark.parametrize("style", [Style((0,)), Style((0,), temperature=0.9, top_p=0.95, seed=3)])
def test_streams_in_turns_have_the_tokens_of_answers_in_one_piece(model: Any, style: Style) -> None:
    with answering(model, "sdpa"):
        whole = write_answers(model, PROMPTS, style, CPU)
    streams = [AnswerStream(partial(written, model, prompted, style)) for prompted in PROMPTS]
    found: list[list[int]] = [[] for _ in PROMPTS]
    while any(len(ids) < len(answer.ids) for ids, answer in zip(found, whole, strict=True)):
        for ids, stream in zip(found, streams, strict=True):
            ids += [token for token in [next(stream, None)] if token is not None]
    assert [next(stream, None) for stream in streams] == [None] * len(PROMPTS)
    assert [(tuple(ids), stream.stopped) for ids, stream in zip(found, streams, strict=True)] == whole


def test_a_stream_that_is_closed_computes_no_more(model: Any) -> None:
    last: list[Written] = []
    stream = AnswerStream(lambda take: last.append(written(model, PROMPTS[0], Style((0,)), take)) or last[0])
    first = [next(stream), next(stream)]
    stream.close()
    assert [list(answer.ids) for answer in last] == [first]
    assert list(stream) == []
    AnswerStream(partial(written, model, PROMPTS[0], Style((0,)))).close()


def test_an_error_of_the_model_reaches_whoever_waits() -> None:
    def fails(take: Take) -> Written:
        take(1)
        raise ValueError("of the model")

    stream = AnswerStream(fails)
    assert next(stream) == 1
    with pytest.raises(ValueError, match="of the model"):
        next(stream)
    stream.close()


@pytest.fixture(scope="module")
def tokenizer(tiny_model_dir: Path) -> ExampleTokenizer:
    return ExampleTokenizer(AutoTokenizer.from_pretrained(tiny_model_dir))


@settings(max_examples=12)
@given(st.text(max_size=30), st.lists(st.integers(0, 610), max_size=12))
def test_any_tokens_are_shown_whole_and_in_order(tokenizer: ExampleTokenizer, text: str, ids: list[int]) -> None:
    """Random ids are bytes that are no text, control tokens, and ids that no token has."""
    words = "".join(char for char in text if not 0xD800 <= ord(char) <= 0xDFFF)
    for tokens in (tokenizer.ids_of(words), [*tokenizer.ids_of(words), *ids]):
        growing, shown = GrowingText(tokenizer.words_of), ""
        for token in tokens:
            shown += growing.add(token)
            assert not shown.endswith("\ufffd")
            assert growing.whole.startswith(shown)
        assert shown + growing.rest() == tokenizer.words_of(tokens) == growing.whole


def test_half_a_character_waits_for_its_other_half(tokenizer: ExampleTokenizer) -> None:
    growing = GrowingText(tokenizer.words_of)
    pieces = [growing.add(token) for token in tokenizer.ids_of("é 漢")]
    assert [piece for piece in pieces if piece] == ["é", " 漢"]
    assert len(pieces) > 3
