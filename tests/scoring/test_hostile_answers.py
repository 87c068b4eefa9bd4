"""What a model writes is judged or cannot be read, whatever it is: it ends no run, and takes no long time."""

import json
import time
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sft.construction.answer_form import FormError, read_json, read_object
from sft.construction.filters.json_answer import parsed
from sft.construction.recipes.tool_schemas import call_problem
from sft.construction.value_schema import UnusableSchema, fits
from sft.endpoint.chat import ChatReply, ReplyError, no_reply, read_models, read_reply
from sft.endpoint.completion import CompletionRequest
from sft.nesting import MOST_LEVELS
from sft.scoring.call_arguments import JsonArguments, MarkedArguments, PythonArguments
from sft.scoring.call_form import CallForm, Expected, in_usual_calls
from sft.scoring.code_tests import code_in, what_is_wrong
from sft.scoring.json_equal import NO_JSON
from sft.scoring.judge_verdict import graded, labelled, preferred
from sft.scoring.registry import SCORERS, read_score
from sft.scoring.scorer import Answer, Question
from sft.scoring.tool_call import calls_in, is_nothing_but_calls
from sft.strict_json import read_json as strict_json

HERE = [name for name in SCORERS if name not in ("math", "rouge_l", "regex", "code", "judge")]
"""Scores that are given in this process: the others have one that is ended (`sft.scoring.judging`)."""
_MARKS = MarkedArguments(">\n<p=", ">\n", ">\n", "\n</p>\n<p=", "\n</p>\n</f>", ">\n</f>", "text or python")
FORMS = (
    CallForm("[TOOL_CALLS]", JsonArguments("[ARGS]"), ""),
    CallForm("[", PythonArguments(), "]", ", "),
    CallForm("<tool_call>\n<f=", _MARKS, "\n</tool_call>", "\n"),
)
NUMBERS = ["9" * 310, "1" * 400 + ".5", "9" * 5000, "1e999", "-1e999", "NaN", "-Infinity", "0x" + "f" * 300, "1/0"]
NUMBERS += ["10^99", "1e-999", "\\frac{1}{0}", "½", "²", "٣", "１", "Ⅷ", "0." + "9" * 5000]
NESTED = ["[" * 1200, "[" * 99, "]" * 99, '{"a":' * 300, "}" * 300, "[" * 450 + "]" * 450, "((" * 300]
SIGNS = [*'{}[](),:;."$%^*-+/\\#`<>= \n\t', "\x00", "\ud800", "\\ud800", "\u2028", "```json\n", "```python\n"]
WORDS = ["#### ", "\\boxed{", "answer is ", "Grade: ", "not ", "A", "B", "Option ", "true", "wait, ", "def f():"]
CALLS = ['{"name": "f", "arguments": ', '"grade": ', '{"grade": ', "<tool_call>", "</tool_call>", "<think>", "[f(x="]
CALLS += ["[TOOL_CALLS]f[ARGS]", "<tool_call>\n<f=g>\n<p=x>\n", "\n</p>\n</f>\n</tool_call>"]
HOSTILE = st.lists(st.sampled_from(NUMBERS + NESTED + SIGNS + WORDS + CALLS), max_size=8).map("".join)


@given(HOSTILE, HOSTILE)
@settings(max_examples=60, deadline=None)
def test_any_text_is_judged_or_cannot_be(answer: str, other: str) -> None:
    for name in HERE:
        scorer = read_score(name).scorer
        for reference in (other, answer, "3", '{"grade": 1}'):
            verdict = scorer.judge(Answer(answer), Question((reference,), (reference, "3", "x"), ("f(1)",)))
            assert verdict.failed != bool(verdict.scores)
            assert all(0 <= value <= 1 + 1e-9 for value in verdict.scores.values())
    for place, _ in (graded(answer, 1, 5), labelled(answer, ("wrong", "right"))):
        assert place is None or 0 <= place <= 4
    assert preferred(answer)[0] in ("A", "B", "tie", None)
    what_is_wrong([answer])
    code_in(answer, [other])


@given(HOSTILE)
@settings(max_examples=60, deadline=None)
def test_calls_that_are_read_can_be_written_as_json(text: str) -> None:
    is_nothing_but_calls(text)
    for form in FORMS:
        for call in calls_in(in_usual_calls(text, form, Expected())):
            json.dumps(call.arguments, allow_nan=False)


@given(HOSTILE)
@settings(max_examples=60, deadline=None)
def test_a_reply_is_read_or_has_a_reason(value: str) -> None:
    chosen = '{"message": {"content": %s, "tool_calls": [{"function": {"name": "f", "arguments": %s}}]}, '
    counts = '{"prompt_tokens": %s, "completion_tokens": %s}'
    written = '{"choices": [{"finish_reason": "length", '
    for form in (
        "%s",
        f'{{"choices": [{chosen}"finish_reason": "stop"}}], "usage": {counts}}}',
        written + '"token_ids": [%s], "prompt_logprobs": [null, {"2": %s}]}]}',
        written + '"token_ids": [5], "prompt_logprobs": [null, {"2": {"logprob": %s}}]}]}',
    ):
        body = form.replace("%s", value).encode(errors="replace")
        for read in (lambda b: read_reply(b, 10), CompletionRequest("", (1, 2), 1, with_prompt=True).read):
            with suppress(ReplyError):
                read(body)
        assert (no_reply("", body).num_prompt_tokens or 0) < 1 << 50
        read_models(body)


@given(HOSTILE)
@settings(max_examples=60, deadline=None)
def test_an_answer_has_the_form_that_was_asked_for_or_not(value: str) -> None:
    for text in (value, f'{{"score": {value}}}'):
        for read in (read_json, lambda reply: read_object(reply, {"score": int})):
            with suppress(FormError):
                read(ChatReply(text))
        answer = parsed(text)
        for schema in ({"properties": {"score": {"multipleOf": 0.1, "minimum": 0.5}}}, {"multipleOf": 3}, answer):
            if answer is not NO_JSON:
                with suppress(UnusableSchema):
                    fits(answer, schema)
                tool = {"function": {"name": "f", "parameters": {"properties": {"score": {"multipleOf": 0.1}}}}}
                call_problem({"name": "f", "arguments": answer}, [tool])


def test_json_is_read_as_deep_as_anything_can_go_through_it() -> None:
    for num in (MOST_LEVELS - 1, MOST_LEVELS):
        assert json.dumps(strict_json("[" * num + "]" * num)) == "[" * num + "]" * num
    for num in (MOST_LEVELS + 1, 900, 100_000):
        with pytest.raises(ValueError, match="nested more than 100 levels"):
            strict_json("[" * num + "]" * num)
    assert len(strict_json("[" + "[]," * 1000 + "[]]")) == 1001


UNITS = [
    "12,34,",
    "12,",
    "1 ",
    "½",
    "\\sqrt[",
    "\\boxed{",
    "{",
    "{}",
    "[f()]",
    "\n",
    "A\n",
    "0.9",
    "9",
    "grade: 1 ",
    "a ",
]


@pytest.mark.parametrize("unit", [*UNITS, '{"name":"f","arguments":{}}', "[TOOL_CALLS]f[ARGS]{}", "```\n"])
def test_long_answers_take_a_time_that_is_proportional_to_their_length(unit: str) -> None:
    text = unit * (100_000 // len(unit))
    # What time depends on besides is the machine, so this is far above it: what grows with the square takes a minute.
    began = time.process_time()
    for name in ("number", "choice", "json", "tool_call", "exact_match", "contains"):
        read_score(name).scorer.judge(
            Answer(text), Question(("3", '{"a": 1}', '{"name": "f", "arguments": {}}'), ("3",))
        )
    graded(text, 1, 5), labelled(text, ("wrong", "right")), preferred(text), code_in(text, ["f(1)"])
    for form in FORMS:
        in_usual_calls(text, form, Expected())
    assert time.process_time() - began < 8
