"""Whether an answer makes the right calls of tools: names and arguments are equal, in any order of calls.

Calls are those that were read from the answer, or those in its text: `<tool_call>{…}</tool_call>`, or JSON with a name
and `arguments` or `parameters`. Only between marks is a name alone a call: elsewhere anything may have one, as in
`{"name": "Ann", "age": 3}`. Other forms of templates were brought to the first one (`sft.scoring.call_form`).
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

from sft.schema import ToolCall
from sft.scoring.json_equal import all_values_in, difference, values_in, whole_json
from sft.scoring.metric import Metric
from sft.scoring.scorer import JUDGED, Answer, Need, Question, Settings, Verdict, failure

_MARKED = re.compile(r"<tool_call>(.*?)(?:</tool_call>|\Z)", re.DOTALL)
_ARGUMENTS = {"arguments", "parameters"}
_OF_CALLS = {"name", "tool_name", *_ARGUMENTS, "function", "type", "id", "call_id", "tool_call_id", "index"}


class ToolCallEqual(Settings):
    """Whether all calls are right; and whether the right tools are called, with whatever arguments."""

    metrics: ClassVar[Mapping[str, Metric]] = {
        "tool_call": Metric("tool calls", "answers with the right calls", "higher", JUDGED, is_share=True),
        "tool_name": Metric("tools", "answers that call the right tools", "higher", JUDGED, is_share=True),
    }
    needs: ClassVar[Need] = "tool_calls or references"

    def judge(self, answer: Answer, question: Question) -> Verdict:
        """1 or 0, each."""
        wanted = [question.tool_calls] if question.tool_calls else [*filter(None, map(calls_in, question.references))]
        if not wanted:
            return failure("no call in the references")
        given = answer.tool_calls or calls_in(answer.text)
        notes = [_difference(given, calls) for calls in wanted]
        has_names = any(_names(given) == _names(calls) for calls in wanted)
        is_right = "" in notes
        return Verdict({"tool_call": float(is_right), "tool_name": float(has_names)}, "" if is_right else notes[0])


def calls_in(text: str) -> tuple[ToolCall, ...]:
    """The calls in a text; none if one of them is no JSON, or other JSON: then not all that it calls is known."""
    marked = _MARKED.findall(text)
    calls = [_call(one, bool(marked)) for part in marked or [text] for one in _listed(values_in(part))]
    if None in calls:
        return ()
    # Without marks, there may be more behind words.
    everywhere = [] if marked else [*map(_call, _listed(all_values_in(text, fenced_alone=False)))]
    return max((tuple(filter(None, found)) for found in (calls, everywhere)), key=len)


def is_nothing_but_calls(text: str) -> bool:
    """Whether a text has calls, and their JSON holds nothing beside them, which would not be compared."""
    values = [*_listed(value for part in _MARKED.findall(text) or [text] for value in all_values_in(part, False))]
    return bool(calls_in(text)) and all(value.keys() <= _OF_CALLS for value in values if isinstance(value, dict))


def are_same(given: Sequence[ToolCall], wanted: Sequence[ToolCall]) -> bool:
    """Whether these are the same calls, in any order."""
    return not _difference(given, wanted)


def _listed(values: Iterable[Any]) -> Iterator[Any]:
    for value in values:
        yield from value if isinstance(value, list) else [value]


def _call(value: Any, is_marked: bool = False) -> ToolCall | None:
    if isinstance(value, dict) and isinstance(value.get("function"), dict):
        value = value["function"]
    name = value.get("name", value.get("tool_name")) if isinstance(value, dict) else None
    if not isinstance(name, str) or not (is_marked or value.keys() & _ARGUMENTS):
        return None
    arguments = value.get("arguments", value.get("parameters", {}))
    if isinstance(arguments, str):
        arguments = whole_json(arguments or "{}")
    return ToolCall(name, arguments) if isinstance(arguments, dict) else None


def _difference(given: Sequence[ToolCall], wanted: Sequence[ToolCall]) -> str:
    """Why these are other calls; empty if they are the same, in any order."""
    if not given:
        return "no call in the answer"
    if _names(given) != _names(wanted):
        return f"calls {', '.join(_names(given))}, not {', '.join(_names(wanted))}"
    left = [*wanted]
    for call in given:
        found = {_arguments(call, other): number for number, other in enumerate(left) if other.name == call.name}
        if "" not in found:
            return f"{call.name}: {next(iter(found))}"
        del left[found[""]]
    return ""


def _arguments(given: ToolCall, wanted: ToolCall) -> str:
    return difference(dict(given.arguments), dict(wanted.arguments))


def _names(calls: Iterable[ToolCall]) -> list[str]:
    return sorted(call.name for call in calls)
