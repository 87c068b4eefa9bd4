"""Finds, provably, where the answers stand in the text that a chat template makes of a conversation.

Most templates do not mark the answers, so their places are derived by rendering probes:

    roles      user, assistant
    probes     <|im_start|>user\\n①<|im_end|>\\n<|im_start|>assistant\\n②<|im_end|>\\n
    scaffold   everything between the probes, once for each sequence of roles

If scaffold and contents, put together, equal the rendering, every span is known. Where a template looks into the
contents (think blocks), or writes more than contents (tool calls), it is rendered again with one answer exchanged for
a probe: what changes is the answer, if it shows the answer's own words, name and arguments of its calls. Only the
white space of a template may differ from the answer's.
"""

import json
from collections.abc import Iterator, Sequence
from typing import Any

from sft.data.formats.formatting import RecordError
from sft.data.rendering.adaptation import RenderTemplate
from sft.schema import JsonObject, Message, ToolCall

Span = tuple[int, int]

# Private-use characters: no template looks for them. A probe is of one that the text does not have.
_MARKS = range(0xE000, 0xF900)


class Scaffolds:
    """The template's own text before, between and after the messages, remembered for every sequence of roles."""

    def __init__(self, render_template: RenderTemplate) -> None:
        """Nothing is rendered yet."""
        self._render_template = render_template
        self._by_roles: dict[tuple[str, ...], list[str] | None] = {}

    def match(self, messages: Sequence[Message], text: str) -> list[Span] | None:
        """Every message's span, if scaffold and contents make up exactly `text`. There are no tools in it."""
        roles = tuple([message.role for message in messages])
        if roles not in self._by_roles:
            self._by_roles[roles] = self._derive(messages)
        scaffold = self._by_roles[roles]
        if scaffold is None or not text.startswith(scaffold[0]):
            return None
        spans, at = [], len(scaffold[0])
        for message, between in zip(messages, scaffold[1:], strict=True):
            # Some templates trim the white space around a message.
            for content in (message.content, message.content.strip()):
                if text.startswith(content + between, at):
                    spans.append((at, at + len(content)))
                    at += len(content) + len(between)
                    break
            else:
                return None
        return spans if at == len(text) else None

    def _derive(self, messages: Sequence[Message]) -> list[str] | None:
        """The scaffold of these roles; None where the template does not write every message once and in order."""
        probes = [f"{chr(_MARKS[0])}probe{i}{chr(_MARKS[1])}" for i in range(len(messages))]
        try:
            rest = self._render_template([Message(m.role, p) for m, p in zip(messages, probes, strict=True)], ())
        except RecordError:
            return None
        scaffold = []
        for probe in probes:
            before, found, rest = rest.partition(probe)
            if not found or any(p in before for p in probes):
                return None
            scaffold.append(before)
        return None if any(p in rest for p in probes) else [*scaffold, rest]


def find_last_answer(
    render_template: RenderTemplate, messages: Sequence[Message], tools: Sequence[JsonObject], text: str
) -> Span:
    """The span in `text` of the answer that the conversation ends in, whole but for white space.

    Raises:
        RecordError: the template does not show the answer, or not the whole of it.
    """
    changed = find_changed_text(render_template, messages, tools, len(messages) - 1, text)
    if changed is None:
        raise _not_shown("does not show where the answer is", messages[-1], text)
    span = _cover_answer(text, changed, messages[-1])
    if span is None:
        raise _not_shown("does not write the whole answer", messages[-1], text)
    return span


def find_changed_text(
    render_template: RenderTemplate, messages: Sequence[Message], tools: Sequence[JsonObject], turn: int, text: str
) -> Span | None:
    """The part of `text` that changes when this turn's answer is exchanged for a probe; None where nothing does."""
    mark = next(chr(code) for code in _MARKS if chr(code) not in text)
    probe = f"{mark}probe{mark}"
    try:
        other = render_template([*messages[:turn], Message("assistant", probe), *messages[turn + 1 :]], tools)
    except RecordError:
        return None
    before, found, behind = other.partition(probe)
    if not found or probe in behind:
        return None
    start, end = _num_common(text, before), len(text) - _num_common(text[::-1], behind[::-1])
    return (start, end) if start < end else None


def _cover_answer(text: str, changed: Span, message: Message) -> Span | None:
    """The changed text, and of the text before it what makes the answer whole; None where it does not get whole.

    Less than the answer changes where the template treats its beginning apart: a think block, which it also writes
    around nothing.
    """
    start, end = changed
    before, shown, words = _squeeze(text[:start]), _squeeze(text[start:end]), _squeeze(message.content)
    if not shown:
        return None
    for num_before in range(len(words) + 1) if message.tool_calls else (len(words) - len(shown),):
        beginning, rest = words[: max(num_before, 0)], words[max(num_before, 0) :]
        if shown.startswith(rest) and before.endswith(beginning):
            if not _shows_calls(shown[len(rest) :], message.tool_calls):
                continue
            while num_before > 0:
                start -= 1
                num_before -= not text[start].isspace()
            return start, end
    return None


def _shows_calls(shown: str, calls: Sequence[ToolCall]) -> bool:
    """Whether a text without white space has the calls' names, in order, and arguments; without calls: is empty."""
    if not calls:
        return not shown
    at = 0
    for call in calls:
        found = shown.find(_squeeze(call.name), at)
        if found < 0:
            return False
        at = found + len(_squeeze(call.name))
        for value in _leaves(call.arguments):
            if not any(_squeeze(form) in shown for form in _written_forms(value)):
                return False
    return True


def _leaves(value: Any) -> Iterator[str | float]:
    """The texts and numbers in the arguments of a call. Templates spell the other constants in several ways."""
    if isinstance(value, dict):
        for item in value.values():
            yield from _leaves(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _leaves(item)
    elif isinstance(value, str | int | float) and not isinstance(value, bool):
        yield value


def _written_forms(value: str | float) -> tuple[str, ...]:
    """As it is; in JSON, with and without other than ASCII; in Python."""
    if isinstance(value, str):
        return value, json.dumps(value, ensure_ascii=False)[1:-1], json.dumps(value)[1:-1], repr(value)[1:-1]
    return json.dumps(value), repr(value)


def _squeeze(text: str) -> str:
    return "".join(text.split())


def _num_common(first: str, second: str) -> int:
    """Characters that two texts have in common at their beginning, by halving: texts are long, comparing is fast."""
    low, high = 0, min(len(first), len(second))
    while low < high:
        middle = (low + high + 1) // 2
        if first.startswith(second[low:middle], low):
            low = middle
        else:
            high = middle - 1
    return low


def _not_shown(problem: str, message: Message, text: str) -> RecordError:
    calls = "".join(f" + a call of {call.name} with {_excerpt(dict(call.arguments))}" for call in message.tool_calls)
    return RecordError(
        f"the chat template {problem}\n"
        f"      the answer:          {_excerpt(message.content)}{calls}\n"
        f"      the template's text: {_excerpt(text)}\n"
        "      Needed: a template that writes the answer's own words. Choose another with model.chat_template."
    )


def _excerpt(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= 400 else f"{shown[:200]} … {shown[-200:]}"
