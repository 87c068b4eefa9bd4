"""How a template writes calls, found by what a model has to write for some.

    learned    ⟦[TOOL_CALLS]probetoola[ARGS]{"probekeya": "probevaluea"}</s>⟧
    form        ────head────          ─before─            JSON

A form is taken only if it reads from what the template writes exactly the calls that were given to it: arguments of
several kinds, none, and several calls. What a form then cannot read of a record, such as a mark inside a value, the
questions notice (`sft.questions.prompts`).
"""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from os.path import commonprefix
from typing import NamedTuple

from sft.data.rendering.adaptation import RenderTemplate, TemplateTraits
from sft.data.rendering.answer_spans import find_answer
from sft.data.rendering.turn_bounds import TurnBounds
from sft.errors import RecordError
from sft.schema import Message, ToolCall
from sft.scoring.call_arguments import ANY_ID, Arguments, JsonArguments, MarkedArguments, PythonArguments
from sft.scoring.call_form import CALL_END, CALL_START, CallForm, Expected, in_usual_calls
from sft.scoring.tool_call import are_same, calls_in
from sft.thoughts import Marks, answer_in, whole_text

Write = Callable[[Sequence[ToolCall]], str | None]
"""Calls → what a model writes to make them; None where the template refuses them."""

_FIRST, _SECOND = "probetoola", "probetoolb"
_KEYS, _VALUES = ("probekeya", "probekeyb"), ("probevaluea", "probevalueb")
_IDS = re.compile(r"probeid\d\d")
_TEXTS = dict(zip(_KEYS, _VALUES, strict=True))
_TYPED = {
    "probekeyb": 'He said: "it\'s {5}".\n\\d \U0001f642 <b>',
    "number": 3,
    "a_part": -2.5,
    "yes": True,
    "list": [1, "2", {"a": False}],
    "object": {"b": {"c": "d"}},
    "digits": "3",
    "probekeya": "x",
}


def derive_call_form(
    render_template: RenderTemplate, bounds: TurnBounds, traits: TemplateTraits, marks: Marks
) -> CallForm | None:
    """The form of the template; None where it is the usual one, or is not known.

    Args:
        render_template: the template.
        bounds: where its turns begin and end.
        traits: what it has a form for.
        marks: what it writes around thoughts, also around one that is empty.
    """
    if not traits.has_tool_calls:
        return None  # then they are written in the usual form
    write = _writer(render_template, bounds, traits.has_tool_list, marks)
    typed, none = ToolCall("probe_typed.x-1", _TYPED), ToolCall("probe_none", {})
    proofs = [[typed], [none], *([[none, typed, ToolCall(_SECOND, _TEXTS)]] if traits.has_parallel_calls else [])]
    written = [(calls, write(calls)) for calls in proofs]

    def is_proven(form: CallForm | None) -> bool:
        return all(text is not None and _reads(form, text, calls, bounds.control) for calls, text in written)

    if is_proven(None):
        return None
    return next(filter(is_proven, _candidates(write, traits.has_parallel_calls)), None)


def shown_tokens(form: CallForm | None) -> tuple[str, ...]:
    """What tells calls from other words of an answer: it may be control tokens."""
    return (CALL_START, CALL_END, *(form.pieces if form else ()))


def _reads(form: CallForm | None, text: str, calls: Sequence[ToolCall], control: re.Pattern[str]) -> bool:
    shown = "\n".join(shown_tokens(form))
    words = control.sub(lambda token: token.group() if token.group() in shown else "", text).strip()
    return are_same(calls_in(in_usual_calls(words, form, Expected(calls))), calls)


def _writer(render_template: RenderTemplate, bounds: TurnBounds, has_tool_list: bool, marks: Marks) -> Write:
    def write(calls: Sequence[ToolCall]) -> str | None:
        numbered = tuple(ToolCall(call.name, call.arguments, f"probeid{i:02}") for i, call in enumerate(calls))
        schema = {"type": "object", "properties": {}}
        about = [{"name": call.name, "description": "", "parameters": schema} for call in calls if has_tool_list]
        tools = [{"type": "function", "function": one} for one in about]
        messages = (Message("user", "probequestion"), Message("assistant", "", tool_calls=numbered))
        try:
            text, (start, stop), _ = find_answer(render_template, bounds, messages, tools)
        except RecordError:
            return None
        # The model stops at the last token, which is no part of its answer.
        last = max((token.start() for token in bounds.control.finditer(text, start, stop)), default=stop)
        whole = whole_text(text[:start], text[start:last], thinks=False, marks=marks)
        return answer_in(whole).answer.strip()

    return write


class _Pieces(NamedTuple):
    """What is written around the arguments of calls."""

    head: str
    behind: str
    """Of one call, from the name on."""
    gap: str
    """Of two calls, between the name of the first and that of the second."""


def _candidates(write: Write, has_parallel: bool) -> Iterator[CallForm]:
    with_texts, without = (_pieces(write, arguments, has_parallel) for arguments in (_TEXTS, {}))
    if with_texts is None:
        return
    whole = JsonArguments(*_before_json(with_texts.behind)), PythonArguments()
    for arguments in whole:
        end = _end_of(arguments, with_texts.behind)
        gap_end = _end_of(arguments, with_texts.gap) if has_parallel else 0
        if end and gap_end is not None:
            yield CallForm(with_texts.head, arguments, with_texts.behind[end:], with_texts.gap[gap_end:])
    if without is not None and without.head == with_texts.head:
        yield from _marked(write, with_texts, without)


def _pieces(write: Write, arguments: dict[str, str], has_parallel: bool) -> _Pieces | None:
    first, second = ToolCall(_FIRST, arguments), ToolCall(_SECOND, arguments)
    one = _IDS.sub(ANY_ID, write([first]) or "")
    two = _IDS.sub(ANY_ID, write([first, second]) or "") if has_parallel else f"{one}{_SECOND}"
    if [text.count(name) for text, name in ((one, _FIRST), (two, _FIRST), (two, _SECOND))] != [1, 1, 1]:
        return None
    head, _, behind = one.partition(_FIRST)
    gap = two.partition(_FIRST)[2].partition(_SECOND)[0]
    return _Pieces(head, behind, gap if has_parallel else "")


def _before_json(behind: str) -> tuple[str]:
    for found in re.finditer(r"\{", behind):
        try:
            value, _ = json.JSONDecoder().raw_decode(behind, found.start())
        except ValueError:
            continue
        if value == _TEXTS:
            return (behind[: found.start()],)
    return ("",)


def _end_of(arguments: Arguments, behind: str) -> int | None:
    """Where the arguments end in what stands behind the name; None where they are written otherwise."""
    found = arguments.read(f"f{behind}", 0, "")
    return found.end - 1 if found and found.arguments == _TEXTS else None


def _marked(write: Write, with_texts: _Pieces, without: _Pieces) -> Iterator[CallForm]:
    """Each argument between marks: the pieces are what stands between the keys and values of two."""
    for notation in ("json", "text or json", "text or python"):
        values = [json.dumps(value) if notation == "json" else value for value in _VALUES]
        one = _between(with_texts.behind, _KEYS, values)
        if one is None:
            continue
        begin, to_text, between, to_second, behind = one
        # What stands behind the arguments, and what stands behind a name without any, end in the same way.
        tail = commonprefix([behind[::-1], without.behind[::-1]])[::-1]
        end, none = behind.removesuffix(tail), without.behind.removesuffix(tail)
        gap = without.gap.removeprefix(none)
        to_other = _to_other(write, begin)
        if to_second == to_text and to_other is not None:
            arguments = MarkedArguments(begin, to_text, to_other, between, end, none, notation)
            yield CallForm(with_texts.head, arguments, tail, gap)


def _between(text: str, keys: Sequence[str], values: Sequence[str]) -> tuple[str, ...] | None:
    """What stands before, between and behind two keys and their values, in order; None where it is otherwise."""
    pieces = []
    for word in (keys[0], values[0], keys[1], values[1]):
        before, found, text = text.partition(word)
        if not found:
            return None
        pieces.append(before)
    return (*pieces, text)


def _to_other(write: Write, begin: str) -> str | None:
    """What stands between a key and a number."""
    number = 7919
    behind = (write([ToolCall(_FIRST, {_KEYS[0]: number})]) or "").partition(_FIRST)[2]
    before, found, rest = behind.partition(_KEYS[0])
    return rest.partition(str(number))[0] if found and before == begin and str(number) in rest else None
