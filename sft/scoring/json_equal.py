"""Whether the JSON in an answer equals that of a reference: the order of keys does not matter, that of lists does.

1 equals 1.0 and differs from true. Around the JSON there may be a code fence and other text. An answer with several
values of the reference's kind is right only if they are equal: whoever reads it has to guess which one is meant.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Final

from sft.scoring.metric import Metric
from sft.scoring.scorer import JUDGED, Answer, Question, Settings, Verdict, failure
from sft.strict_json import read_json, read_json_at

NO_JSON: Final = object()
_FENCED = re.compile(r"```[\w-]*[ \t]*\n?(.*?)(?:```|\Z)", re.DOTALL)
_BEGIN = re.compile(r"[{\[]")
_MOST_BEGINNINGS = 20
_BETWEEN = re.compile(r"[ \t\r\n;,]*+(?=\{)")


class JsonEqual(Settings):
    """Whether the answer's JSON is a reference's; and whether there is any."""

    metrics: ClassVar[Mapping[str, Metric]] = {
        "json_equal": Metric("JSON equal", "answers with the right JSON", "higher", JUDGED, is_share=True),
        "json_valid": Metric("JSON valid", "answers with JSON", "higher", JUDGED, is_share=True),
    }

    def judge(self, answer: Answer, question: Question) -> Verdict:
        """1 or 0, each."""
        wanted = [value for reference in question.references if (value := json_in(reference)) is not NO_JSON]
        if not wanted:
            return failure("no JSON in the references")
        found = all_values_in(answer.text)
        if not found:
            return Verdict({"json_equal": 0.0, "json_valid": 0.0}, "no JSON in the answer")
        kinds = {*map(_kind, wanted)}
        given, *others = [value for value in found if _kind(value) in kinds] or found
        if any(difference(other, given) for other in others):
            why = f"{1 + len(others)} JSON values in the answer, which differ: it is not said which one is meant"
            return Verdict({"json_equal": 0.0, "json_valid": 1.0}, why)
        differences = [difference(given, value) for value in wanted]
        is_right = "" in differences
        return Verdict({"json_equal": float(is_right), "json_valid": 1.0}, "" if is_right else differences[0])


def json_in(text: str) -> Any:
    """The value of the JSON in a text; NO_JSON if there is none."""
    return next(values_in(text), NO_JSON)


def whole_json(text: str) -> Any:
    """The value of a text that is JSON and nothing else, but for a code fence; else NO_JSON."""
    fenced = _FENCED.fullmatch(text.strip())
    value, rest = _read(fenced[1] if fenced else text)
    return NO_JSON if rest else value


def values_in(text: str) -> Iterator[Any]:
    """The value of the JSON in a text, and the objects right behind it; NO_JSON for one that only begins so."""
    found = (read for part in _parts(text) if (read := _read(part))[0] is not NO_JSON)
    value, rest = next(found, (NO_JSON, ""))
    end = 0
    while value is not NO_JSON:
        yield value
        begin = _BETWEEN.match(rest, end)
        if begin is None:
            return
        try:
            value, end = read_json_at(rest, begin.end())
        except ValueError:
            break
    yield NO_JSON


def all_values_in(text: str, fenced_alone: bool = True) -> list[Any]:
    """The values of all JSON in a text, none within another: only those in code fences, if there are any."""
    whole, rest = _read(text)
    if whole is not NO_JSON and not rest.strip():
        return [whole]
    if not fenced_alone:
        return [*_values(text)]
    fenced = [part for found in _FENCED.finditer(text) if _read(part := found[1])[0] is not NO_JSON]
    return [value for part in fenced or [text] for value in _values(part)]


def _values(text: str) -> Iterator[Any]:
    whole, rest = _read(text)
    if whole is not NO_JSON and not rest:
        yield whole
        return
    at = 0
    for _ in range(_MOST_BEGINNINGS):
        if (begin := _BEGIN.search(text, at)) is None:
            return
        value, rest = _read(text[begin.start() :])
        at = begin.end()
        if value is not NO_JSON:
            at = len(text.rstrip()) - len(rest)
            yield value


def difference(given: Any, wanted: Any, at: str = "") -> str:
    """The first place where two JSON values differ; empty if they are equal."""
    waiting = [(given, wanted, at)]
    while waiting:  # and not a function that calls itself, which deep values would end
        given, wanted, at = waiting.pop()
        if isinstance(given, dict) and isinstance(wanted, dict):
            if keys := given.keys() ^ wanted.keys():
                key = min(keys)
                return f"{at}.{key} is {'missing' if key in wanted else 'too much'}".lstrip(".")
            waiting += [(given[key], wanted[key], f"{at}.{key}") for key in reversed([*wanted])]
        elif isinstance(given, list) and isinstance(wanted, list):
            if len(given) != len(wanted):
                return f"{at or 'the list'} has {len(given)} elements, not {len(wanted)}".lstrip(".")
            pairs = [*enumerate(zip(given, wanted, strict=True))]
            waiting += [(one, other, f"{at}[{number}]") for number, (one, other) in reversed(pairs)]
        elif _is_number(given) != _is_number(wanted) or type(given) is not type(wanted) and not _is_number(given):
            return f"{at or 'the value'} is {_kind(given)}, not {_kind(wanted)}".lstrip(".")
        elif given != wanted:
            return f"{at or 'the value'} differs".lstrip(".")
    return ""


def _parts(text: str) -> Iterator[str]:
    yield text
    for fenced in _FENCED.finditer(text):
        yield fenced[1]
    for number, begin in enumerate(_BEGIN.finditer(text)):
        if number == _MOST_BEGINNINGS:
            return
        yield text[begin.start() :]


def _read(text: str) -> tuple[Any, str]:
    """The value of a text that is JSON, or begins with an object or a list; and what stands behind it."""
    stripped = text.strip()
    try:
        if _BEGIN.match(stripped):
            value, end = read_json_at(stripped, 0)
            return value, stripped[end:]
        return read_json(stripped), ""
    except ValueError:
        return NO_JSON, ""


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _kind(value: Any) -> str:
    if _is_number(value):
        return "a number"
    kinds = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return kinds[type(value)]
