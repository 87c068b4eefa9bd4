"""Calls are read in the template's own form: what training teaches is right, and no other call is."""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, NamedTuple

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from sft.answering.answer import Answer, written_answer
from sft.data.duplicates import hash_record
from sft.data.record_pipeline import Formatted
from sft.data.rendering.chat_template import TemplateRenderer
from sft.data.rendering.renderer import ConversationRenderer
from sft.data.tokenization import ExampleTokenizer
from sft.errors import RecordError
from sft.evaluation.judged_answers import JudgedAnswer, judge
from sft.questions.prompts import reference_of, up_to_last_learned
from sft.questions.question import Question
from sft.schema import Conversation, Message, RecordLocation, ToolCall
from sft.scoring.registry import read_score
from sft.scoring.tool_call import are_same, calls_in
from sft.thoughts import USUAL, answer_in
from tests.data.call_templates import DERIVED, FAMILIES, TOKENS, UNKNOWN

STOPS = ("<|return|>", "<|call|>")


class Made(NamedTuple):
    """As much of a `RecordPipeline` as questions need."""

    renderer: ConversationRenderer
    tokenizer: ExampleTokenizer


@pytest.fixture(scope="module")
def made(tokenizer_dir) -> Callable[[str], Made]:
    @cache
    def make(name: str) -> Made:
        backend = AutoTokenizer.from_pretrained(str(tokenizer_dir(None)))
        backend.add_special_tokens({"additional_special_tokens": [*TOKENS], "eos_token": "<|return|>"})
        backend.chat_template = FAMILIES[name].template
        tokenizer = ExampleTokenizer(backend)
        stops = frozenset(STOPS if "channels" in name else STOPS[:1])
        renderer = ConversationRenderer(TemplateRenderer(backend), tokenizer.special_tokens, stop_tokens=stops)
        return Made(renderer, tokenizer.with_marks(renderer.thought_marks or USUAL, renderer.call_form))

    return make


class Asked(NamedTuple):
    question: Question
    ids: list[int]
    """What a model learns to write, without the last token."""
    words: str


def ask(made: Made, calls: Sequence[ToolCall], content: str = "", thought: str = "") -> Asked:
    """The question of a record with these calls, as a question set makes it."""
    messages = (Message("user", "Do it."), Message("assistant", content, tool_calls=tuple(calls), thought=thought))
    record = Conversation(messages, "t", "s", 0, RecordLocation("s.jsonl", 1))
    formatted = up_to_last_learned(Formatted(record, 0, hash_record(record)), made.renderer.traits)
    text, thinks, wanted, written = reference_of(formatted, made)  # type: ignore[arg-type]
    prompt, rendering = made.renderer.last_answer(formatted.content)
    ids = made.tokenizer.ids_of(rendering.text[len(prompt) : rendering.answers[0][1]])[:-1]
    question = Question(
        *("s/0", 0, 0, "t", "s", "s:1", False, "generate", (), (), prompt, (1,), 8, (text,)),
        tool_calls=wanted,
        thinks=thinks,
        written=written,
    )
    return Asked(question, ids, made.tokenizer.words_of(ids))


def judged(made: Made, question: Question, ids: Sequence[int]) -> JudgedAnswer:
    answer: Answer = written_answer(question, [*ids, 0], True, made.tokenizer)
    [one] = judge([question], {question.key: answer}, {"t": read_score("tool_call")}, False, lambda: None)
    return one


@pytest.mark.parametrize("name", FAMILIES)
def test_a_form_is_taken_where_it_reads_what_it_writes(made, name: str) -> None:
    assert (made(name).renderer.call_form is not None) == FAMILIES[name].is_derived


MARKS = ("</parameter>", "\n</parameter>\n", "<arg_key>", "</arg_value>", "</tool_call>", "<tool_call>", '")]', "</p>")
TEXTS = st.lists(st.sampled_from([*"ab3 \n\"'\\<>{}[](),:=éß🙂", *MARKS]), max_size=6).map("".join)
VALUES = st.recursive(
    TEXTS | st.integers() | st.floats(allow_nan=False, allow_infinity=False, width=16) | st.booleans() | st.none(),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text("ab", max_size=2), inner, max_size=2),
    max_leaves=3,
)
NAMES = st.text("abXY09_-.", min_size=1, max_size=5)
CALLS = st.builds(ToolCall, NAMES, st.dictionaries(st.text("abc_", min_size=1, max_size=2), VALUES, max_size=3))
DRAWN = st.lists(CALLS, min_size=1, max_size=3)


@pytest.mark.parametrize("name", FAMILIES)
@settings(max_examples=5, deadline=None)
@given(calls=DRAWN, others=DRAWN, data=st.data())
def test_what_is_learned_is_right_and_no_other_call_is(made, name: str, calls: Any, others: Any, data: Any) -> None:
    family = made(name)
    try:
        right = ask(family, calls)
    except RecordError:
        assume(False)
    own = judged(family, right.question, right.ids)
    assert own.scores == {"tool_call": 1.0, "tool_name": 1.0}, (right, own)
    wanted = right.question.expected.calls
    first, *rest = wanted
    changed = [
        others,
        [ToolCall(f"{first.name}x", first.arguments), *rest],
        [ToolCall(first.name, {**first.arguments, "new": data.draw(VALUES)}), *rest],
        *(
            [ToolCall(first.name, {k: v for k, v in first.arguments.items() if k != key}), *rest]
            for key in first.arguments
        ),
        *([ToolCall(first.name, {**first.arguments, key: data.draw(VALUES)}), *rest] for key in first.arguments),
    ]
    for wrong in changed:
        try:
            written = ask(family, wrong)
        except RecordError:
            continue
        if are_same(written.question.expected.calls, wanted) or _squeezed(written.words) == _squeezed(right.words):
            continue  # the same calls, or a template that writes both alike
        assert judged(family, right.question, written.ids).scores["tool_call"] == 0.0, (right, written)


def _squeezed(text: str) -> str:
    return "".join(text.split())


PLAIN = {
    "city": 'São "Paulo"\nand on',
    "days": 3,
    "exact": -0.5,
    "more": True,
    "of": ["a", 1],
    "inside": {"a": {}},
    "n": "3",
}


@pytest.mark.parametrize("name", DERIVED)
def test_usual_values_are_read_whatever_stands_around_the_calls(made, name: str) -> None:
    """Also where keys come in another order, or a call has none."""
    family = made(name)
    for calls in ([ToolCall("f", PLAIN)], [ToolCall("get.it-now", {}), ToolCall("f", PLAIN)]):
        asked = ask(family, calls)
        assert asked.question.written == ""
        assert calls_in(asked.question.references[0]) == tuple(asked.question.expected.calls)
        turned = [ToolCall(call.name, dict(reversed(call.arguments.items()))) for call in reversed(calls)]
        if len(asked.question.tool_calls) == len(calls):
            assert judged(family, asked.question, ask(family, turned).ids).score == 1.0
    if "channels" in name:
        return  # it writes no words in front of a call
    with_words = ask(family, [ToolCall("f", PLAIN)], content="Let me see.")
    answer = judged(family, with_words.question, with_words.ids)
    assert answer.score == 1.0
    assert answer_in(answer.answer.text).answer.startswith("Let me see.\n<tool_call>\n{"), answer.answer.text


@pytest.mark.parametrize("name", UNKNOWN)
def test_where_no_form_is_known_only_the_learned_words_are_right(made, name: str) -> None:
    family = made(name)
    right, wrong = (ask(family, [ToolCall("f", {"a": value, "b": 1})]) for value in ("x", "y"))
    assert right.question.written == right.words
    assert judged(family, right.question, right.ids).score == 1.0
    assert judged(family, right.question, wrong.ids).score == 0.0


@pytest.mark.parametrize("name", ["channels", "channels, and to whom in one", "JSON behind a thought"])
def test_a_call_behind_a_thought_is_no_cut_thought(made, name: str) -> None:
    family = made(name)
    asked = ask(family, [ToolCall("f", PLAIN)], thought="Which city?\nThis one.")
    one = judged(family, asked.question, asked.ids)
    assert (one.score, one.note) == (1.0, "")
    assert one.answer.text.startswith("<think>\nWhich city?\nThis one.\n</think>\n\n")
    assert "city" in answer_in(one.answer.text).answer
    cut = judged(family, asked.question, family.tokenizer.ids_of(f"{family.tokenizer.marks.start}Which city?"))
    assert (cut.score, answer_in(cut.answer.text).why_empty) == (0.0, "the thought was cut")


def test_of_several_calls_the_first_is_asked_for_where_a_turn_has_one(made) -> None:
    asked = ask(made("channels"), [ToolCall("f", {"a": 1}), ToolCall("g", {})])
    assert asked.question.tool_calls == ({"name": "f", "arguments": {"a": 1}},)
    assert judged(made("channels"), asked.question, asked.ids).score == 1.0


def test_what_the_model_wrote_is_kept_as_it_is(made) -> None:
    family = made("name and JSON")
    asked = ask(family, [ToolCall("f", {"a": 1})])
    answer = judged(family, asked.question, asked.ids).answer
    assert answer.raw == '[TOOL_CALLS]f[ARGS]{"a": 1}'
    assert answer.text == '<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>'
