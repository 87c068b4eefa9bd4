"""Brings the calls in what a model wrote to the usual form, whatever form its chat template has for them.

    [TOOL_CALLS]f[ARGS]{"x": 1}    ──in_usual_calls──▶    <tool_call>↵{"name": "f", "arguments": {"x": 1}}↵</tool_call>

From here on, calls have one form, as thoughts have (`sft.thoughts`): scores, judges and pages know no other. What
stands around the calls stays. A text of which a part begins as a call, and is none, stays as it is: not all that it
calls is known.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from sft.schema import JsonObject, ToolCall
from sft.scoring.call_arguments import Arguments, MarkedArguments, ReadCall, Undecided, compiled, pattern
from sft.scoring.json_equal import difference
from sft.thoughts import answer_in

CALL_START, CALL_END = "<tool_call>", "</tool_call>"
_MOST_TRIED = 20
"""Of places that may begin calls and do not."""
_MOST_CALLS = 500
"""An answer with more of them goes round in circles, and is not read."""


class CallForm(NamedTuple):
    """How a chat template writes the calls of a turn: `head CALL (gap CALL)* tail`, a call from its name on."""

    head: str
    """Empty: an answer with calls begins with the first."""
    arguments: Arguments
    tail: str
    gap: str = ""
    """Empty: there is one call in a turn."""

    @property
    def pieces(self) -> tuple[str, ...]:
        """All that it writes around names and values."""
        return (self.head, self.gap, self.tail, *self.arguments.pieces)


class Expected(NamedTuple):
    """What is known of the right answer to a question."""

    calls: Sequence[ToolCall] = ()
    tools: Sequence[JsonObject] = ()
    """JSON schemas of the tools that may be called."""
    text: str = ""
    """The right answer, with its calls in the usual form."""
    written: str = ""
    """The same as the template writes it, where calls cannot be read from that: the only words that are then right."""


def in_usual_calls(text: str, form: CallForm | None, expected: Expected) -> str:
    """The text with its calls in the usual form.

    Args:
        text: what a model wrote, with its thought in the usual form.
        form: that of the template; None if it is the usual one, or not known.
        expected: says what the values are of which the text does not say it. A value is that of the right call if it is
            written as that one would be; else what the tool's schema allows; else a text only if it is nothing else.
    """
    answer = answer_in(text).answer.strip()
    thought = text[: len(text.rstrip()) - len(answer)] if answer else text
    if expected.written and answer == expected.written:
        return thought + expected.text
    usual = _in_usual_calls(answer, form, expected) if form else None
    return text if usual is None else thought + usual


def usual_call(name: str, arguments: Mapping[str, Any]) -> str:
    """A call in the usual form; no value in it ends it."""
    content = json.dumps({"name": name, "arguments": arguments}, ensure_ascii=False)
    return f"{CALL_START}\n{content.replace('tool_call>', 'tool_call' + chr(92) + 'u003e')}\n{CALL_END}"


def _in_usual_calls(text: str, form: CallForm, expected: Expected) -> str | None:
    """None where it has no calls, or a part begins as a call and is none."""
    head = compiled(pattern(form.head) if form.head else r"\A\s*")
    parts: list[str] = []
    around: list[str] = []
    behind = at = num_tried = 0
    while found := head.search(text, at):
        block = _read_block(text, found.end(), form)
        if block is None:
            num_tried += 1
            if _is_mark(form.head) or num_tried == _MOST_TRIED or not form.head:
                return None
            at = found.end()
            continue
        calls, end = block
        around.append(text[behind : found.start()].strip())
        parts += [around[-1], *(usual_call(call.name, _settled(call, expected)) for call in calls)]
        behind = at = end
        if len(parts) > 2 * _MOST_CALLS:
            return None
    around.append(text[behind:].strip())
    if not parts or (_is_mark(form.gap) and any(compiled(pattern(form.gap)).search(part) for part in around)):
        return None
    return "\n".join(filter(None, (*parts, around[-1])))


def _is_mark(piece: str) -> bool:
    """Whether it only stands at calls: a bracket alone says nothing."""
    return any(char.isalnum() for char in piece)


def _read_block(text: str, at: int, form: CallForm) -> tuple[list[ReadCall], int] | None:
    """The calls from here on, and where they end."""
    is_marked = isinstance(form.arguments, MarkedArguments)
    space = "" if is_marked else r"\s*"  # behind a value, it is the value's
    tail = space + (pattern(form.tail) or (r"\s*\Z" if is_marked else ""))
    gap = form.gap and space + pattern(form.gap)
    behind = f"(?:{gap}|{tail})" if gap else f"(?:{tail})"
    calls: list[ReadCall] = []
    while call := form.arguments.read(text, at, behind):
        calls.append(call)
        if len(calls) > _MOST_CALLS:
            return None
        goes_on = compiled(gap).match(text, call.end) if gap else None
        if goes_on and form.arguments.read(text, goes_on.end(), behind):
            at = goes_on.end()
            continue
        end = compiled(tail).match(text, call.end)
        return (calls, end.end()) if end else None
    return None


def _settled(call: ReadCall, expected: Expected) -> dict[str, Any]:
    """The arguments, with the kinds of values that the text does not show."""
    return {
        key: _settle(value, call.name, key, expected) if isinstance(value, Undecided) else value
        for key, value in call.arguments.items()
    }


def _settle(given: Undecided, name: str, key: str, expected: Expected) -> Any:
    right = [call.arguments[key] for call in expected.calls if call.name == name and key in call.arguments]
    for one in given:
        if any(not difference(one, value) for value in right):
            return one
    return given.text if _is_text(_schema(expected.tools, name, key)) else given.value


def _schema(tools: Iterable[JsonObject], name: str, key: str) -> Any:
    """The JSON schema of an argument; None where there is none."""
    for tool in tools:
        about = tool.get("function", tool)
        if isinstance(about, Mapping) and about.get("name") == name:
            found: Any = about.get("parameters", about.get("input_schema"))
            for part in ("properties", key):
                found = found.get(part) if isinstance(found, Mapping) else None
            return found
    return None


def _is_text(schema: Any) -> bool:
    """Whether the schema allows texts alone."""
    kinds = schema.get("type") if isinstance(schema, Mapping) else None
    return kinds in ("string", ["string"])
