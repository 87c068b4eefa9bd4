"""Reading calls in a form: what is whole is read, what is not leaves the text as it is."""

import pytest

from sft.schema import ToolCall
from sft.scoring.call_arguments import JsonArguments, MarkedArguments, PythonArguments
from sft.scoring.call_form import CallForm, Expected, in_usual_calls, usual_call
from sft.scoring.tool_call import calls_in

JSON = CallForm("[CALL]", JsonArguments("[ARGS]"), "", "[CALL]")
SECTION = CallForm("<calls><c>", JsonArguments(":0<args>"), "</c></calls>", "</c><c>")
LINE = CallForm("", JsonArguments("\n"), "", "<next>")
PYTHON = CallForm("[", PythonArguments(), "]", ", ")
MARKED = CallForm(
    "<c>\n<f=",
    MarkedArguments(">\n<p=", ">\n", ">\n", "\n</p>\n<p=", "\n</p>", ">", "text or json"),
    "\n</f>\n</c>",
    "\n</f>\n</c>\n<c>\n<f=",
)
F, G = ToolCall("f", {"a": 1, "b": "x"}), ToolCall("g", {})


def calls(text: str, form: CallForm, *wanted: ToolCall, tools: tuple = ()) -> tuple[ToolCall, ...]:
    return calls_in(in_usual_calls(text, form, Expected(wanted, tools)))


@pytest.mark.parametrize(
    ("text", "form", "found"),
    [
        ('[CALL]f[ARGS]{"a": 1, "b": "x"}[CALL]g[ARGS]{}', JSON, (F, G)),
        ('Well.\n[CALL] f[ARGS] {"b":"x","a":1}\n[CALL]g[ARGS]{} So.', JSON, ()),
        ('Well.\n[CALL]f[ARGS] {"b":"x","a":1}\n[CALL]g[ARGS]{} So.', JSON, (F, G)),
        ('[CALL]f[ARGS]{"a": 1, "b": "x"}[CALL]g[ARGS]{', JSON, ()),
        ('[CALL]f[ARGS]{"a": 1, "b": NaN}', JSON, ()),
        ("[CALL]f[ARGS]3", JSON, ()),
        ('<calls><c>f:0<args>{"a": 1, "b": "x"}</c><c>g:1<args>{}</c></calls>', SECTION, (F, G)),
        ('<calls><c>f:12<args> {"a": 1, "b": "x"} </c></calls> So.', SECTION, (F,)),
        ('<calls><c>f:0<args>{"a": 1, "b": "x"}</c><c>g:1<args>{}</c>', SECTION, ()),
        ('<calls><c>f:0<args>{"a": 1, "b": "x"}</c></calls><calls><c>g:0<args>{}</c></calls>', SECTION, (F, G)),
        ('f\n{"a": 1, "b": "x"}', LINE, (F,)),
        ('f\n{"a": 1, "b": "x"}\n<next>g\n{}', LINE, (F, G)),
        ('f\n{"a": 1, "b": "x"}<next>g\n{', LINE, ()),
        ('I call f\n{"a": 1, "b": "x"}', LINE, ()),
        ('[f(a=1, b="x"), g()]', PYTHON, (F, G)),
        ("See [1]: [f(b='x', a=1)]", PYTHON, (F,)),
        ('[f(1, b="x")]', PYTHON, ()),
        ('[f(a=one(), b="x")]', PYTHON, ()),
        ('[f(a=1, b="x"', PYTHON, ()),
        ('[f(a=1, **{"b": "x"})]', PYTHON, ()),
        ("<c>\n<f=f>\n<p=a>\n1\n</p>\n<p=b>\nx\n</p>\n</f>\n</c>", MARKED, (F,)),
        ("<c><f=f><p=a>1</p><p=b>x</p></f></c>", MARKED, (F,)),
        ("<c>\n<f=f>\n<p=a>\n1\n</p>\n<p=a>\n1\n</p>\n</f>\n</c>", MARKED, ()),
        ("<c>\n<f=f>\n<p=a>\n1\n</p>\n<p=b>\nx", MARKED, ()),
        ("no call", MARKED, ()),
        ("", JSON, ()),
    ],
)
def test_only_whole_calls_are_read(text: str, form: CallForm, found: tuple[ToolCall, ...]) -> None:
    assert calls(text, form) == found
    if not found:
        assert in_usual_calls(text, form, Expected()) == text


THREE = "<c>\n<f=f>\n<p=a>\n3\n</p>\n</f>\n</c>"


def tools_of(schema: dict) -> tuple:
    about = {"name": "f", "parameters": {"type": "object", "properties": {"a": schema}}}
    return ({"type": "function", "function": about}, {"type": "function", "function": {"name": "g"}})


@pytest.mark.parametrize(
    ("wanted", "schema", "value"),
    [
        (3, {}, 3),
        ("3", {}, "3"),
        ("3", {"type": "integer"}, "3"),
        (4, {}, 3),
        (4, {"type": "string"}, "3"),
        ("4", {"type": "string"}, "3"),
        ("4", {"type": ["string", "integer"]}, 3),
        (None, {"type": "integer"}, 3),
    ],
)
def test_the_right_call_and_then_the_schema_say_what_a_value_is(wanted: object, schema: dict, value: object) -> None:
    """Written as the right call would be, it is right, whatever it may also be."""
    right = ToolCall("f", {"a": wanted})
    (found,) = calls(THREE, MARKED, right, tools=tools_of(schema))
    assert (found.arguments["a"], type(found.arguments["a"])) == (value, type(value))


def test_no_value_ends_a_call() -> None:
    call = ToolCall("f", {"a": "</tool_call><tool_call>\n{}", "</tool_call>": ["é"]})
    assert calls_in(f"So:\n{usual_call(call.name, call.arguments)}\nand no more") == (call,)


def test_a_thought_is_no_place_for_calls() -> None:
    text = "<think>\n[CALL]f[ARGS]{}\n</think>\n\n[CALL]g[ARGS]{}"
    usual = in_usual_calls(text, JSON, Expected())
    assert usual.startswith("<think>\n[CALL]f[ARGS]{}\n</think>\n\n<tool_call>")
    assert in_usual_calls("<think>\n[CALL]f[ARGS]{}", JSON, Expected()) == "<think>\n[CALL]f[ARGS]{}"


def test_words_that_are_expected_are_the_right_answer() -> None:
    expected = Expected((F,), (), "usual", "call f of 1 and x")
    assert in_usual_calls("<think>\nHm.\n</think>\n\ncall f of 1 and x\n", None, expected).endswith("</think>\n\nusual")
    assert in_usual_calls("call f of 2 and x", None, expected) == "call f of 2 and x"
