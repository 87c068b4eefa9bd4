"""Finds the answers of a conversation by its control tokens, after a probe conversation of the same shape showed how.

A shape is everything in a conversation except its words: roles, and which messages have content, thoughts and calls. A
probe conversation of the same shape goes the slow way (`answer_spans`), once. It shows behind how many control tokens
each answer begins and ends, what else the template writes around its words, and whether the whole conversation still
writes the answer as it was. Words hold no control tokens, so the same numbers hold in any text of this shape.

    probe    <|im_start|>user\\n①<|im_end|>\\n<|im_start|>assistant\\n⟦②<|im_end|>⟧\\n    behind the third
    text     <|im_start|>user\\nHi<|im_end|>\\n<|im_start|>assistant\\n⟦Hello.<|im_end|>⟧\\n

This way is used only for a text that has exactly the control tokens of the probe and shows the answer with exactly the
words that the template writes around it. Any other text goes the slow way, and so does a conversation whose words the
template might look at. So a conversation of many turns is rendered once, not twice for each answer.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeVar

from sft.data.rendering.adaptation import RenderTemplate
from sft.data.rendering.answer_spans import BEHIND_PROMPT, Answered, Span, shows, squeeze
from sft.data.rendering.turn_bounds import MARKS
from sft.errors import RecordError
from sft.schema import Conversation, JsonObject, Message, ToolCall

_MOST_SHAPES = 2000

_Seen = TypeVar("_Seen", bound=tuple[object, ...])
_Shape = tuple[object, ...]
"""A summary of the tools, then one item for each message."""

FindAnswer = Callable[[Sequence[Message], Sequence[JsonObject]], Answered]
"""The slow way: what is learned of the last message."""


class _Turn(NamedTuple):
    """What a probe showed of the last answer of a conversation."""

    tokens: tuple[str, ...]
    """All control tokens of the text."""
    num_before: int
    """How many of them come before the answer."""
    lead: str
    """The text between the last of them and the answer."""
    num_through: int
    """How many of them come up to the end of the turn."""
    learned: tuple[str, ...]
    """What the template writes before, between and behind thought and content, without white space; for a turn with
    calls, only what it writes before them."""
    until_end: str
    """The probe's text up to the end of the turn."""
    notes: tuple[str, ...] = ()
    other_lead: str = ""
    """If the answer does not begin behind the generation prompt: what the prompt has instead of the lead."""


class _Whole(NamedTuple):
    """What a probe showed of a whole conversation."""

    text: str
    tokens: tuple[str, ...]


class Landmarks:
    """What probes showed of one template, remembered for every shape."""

    def __init__(self, render_template: RenderTemplate, find_answer: FindAnswer, control: re.Pattern[str]) -> None:
        """`control` finds the tokens in a text that are landmarks."""
        self._render_template = render_template
        self._find_answer = find_answer
        self._control = control
        self._placing: tuple[Conversation | None, tuple[_Shape, ...]] = None, ()
        self._turns: dict[_Shape, _Turn | None] = {}
        self._wholes: dict[_Shape, _Whole | None] = {}

    def place_together(
        self, conversation: Conversation, turns: Sequence[int], text: str
    ) -> dict[int, tuple[Span, tuple[str, ...]] | None] | None:
        """The span in the whole text of each answer that is learned, with notes. None in its place where the whole text
        does not write it as it was when it was the last. None overall where no probe shows the answers.

        Args:
            conversation: the whole.
            turns: the messages that are learned.
            text: the template's text of the whole.
        """
        tokens = list(self._control.finditer(text))
        seen = self._see_with(conversation, tuple([token.group() for token in tokens]))
        if seen is None:
            return None
        shape, whole = seen
        placed: dict[int, tuple[Span, tuple[str, ...]] | None] = {}
        for turn in turns:
            shown = self._turn(shape, conversation, turn)
            if shown is None:
                return None
            placed[turn] = None
            if whole.text.startswith(shown.until_end):
                span = _span(text, tokens, shown, conversation.messages[turn])
                if span is None:
                    return None
                placed[turn] = span, shown.notes
        return placed

    def place_last(self, conversation: Conversation, turn: int) -> Answered | None:
        """The conversation up to this answer; None where no probe shows it."""
        text = self._render_template(conversation.messages[: turn + 1], conversation.tools)
        tokens = list(self._control.finditer(text))
        for shape in self._shapes(conversation):
            shown = self._turn(shape, conversation, turn)
            if shown is not None and tuple([token.group() for token in tokens]) == shown.tokens:
                span = _span(text, tokens, shown, conversation.messages[turn])
                return None if span is None else Answered(text, span, shown.notes)
        return None

    def _shapes(self, conversation: Conversation) -> Sequence[_Shape]:
        """The shapes of one conversation, computed once for all its answers."""
        placing = self._placing  # another thread may have set it
        if placing[0] is not conversation:
            placing = self._placing = conversation, tuple(_shapes(conversation))
        return placing[1]

    def _see_with(self, conversation: Conversation, tokens: tuple[str, ...]) -> tuple[_Shape, _Whole] | None:
        """The conversation's shape, in as much detail as a probe with these tokens needs; and the probe."""
        for shape in self._shapes(conversation):
            whole = _recall(self._wholes, shape, partial(self._see_whole, conversation, shape))
            if whole is not None and whole.tokens == tokens:
                return shape, whole
        return None

    def _turn(self, shape: _Shape, conversation: Conversation, turn: int) -> _Turn | None:
        return _recall(self._turns, shape[: turn + 2], partial(self._see_turn, conversation, turn, shape))

    def _see_whole(self, conversation: Conversation, shape: _Shape) -> _Whole | None:
        try:
            text = self._render_template(*_probe(conversation, len(conversation.messages), shape))
        except RecordError:
            return None
        return _Whole(text, tuple(self._control.findall(text)))

    def _see_turn(self, conversation: Conversation, turn: int, shape: _Shape) -> _Turn | None:
        messages, tools = _probe(conversation, turn + 1, shape)
        try:
            answered = self._find_answer(messages, tools)
        except RecordError:
            return None
        text, (start, end), notes = answered
        before = list(self._control.finditer(text, 0, start))
        lead = text[before[-1].end() : start] if before else ""
        if not before or any(ord(char) in MARKS for char in lead) or BEHIND_PROMPT in notes:
            return None
        other_lead = self._other_lead(messages, tools, text[: before[-1].end()]) if notes else ""
        if other_lead is None:
            return None
        learned = _written_around(text[start:end], messages[-1])
        if learned is None:
            return None
        through = len(list(self._control.finditer(text, 0, end)))
        tokens = tuple(self._control.findall(text))
        return _Turn(tokens, len(before), lead, through, learned, text[:end], notes, other_lead)

    def _other_lead(self, messages: Sequence[Message], tools: Sequence[JsonObject], before: str) -> str | None:
        """What the generation prompt writes behind the text `before`; None where it does not begin with it."""
        try:
            prompt = self._render_template(messages[:-1], tools, for_generation=True)
        except RecordError:
            return None
        return squeeze(prompt[len(before) :]) if prompt.startswith(before) else None


def _shapes(conversation: Conversation) -> Iterator[_Shape]:
    """Everything except the words that a template may tell apart. For templates that write tokens inside tools and
    arguments, then the same with these in detail."""
    ids = _number_ids(conversation)
    yield (len(conversation.tools), *[_message_shape(message, ids, _is_empty) for message in conversation.messages])
    if conversation.tools or any(message.tool_calls for message in conversation.messages):
        tools = json.dumps(conversation.tools, default=str)
        yield (tools, *[_message_shape(message, ids, _kinds) for message in conversation.messages])


def _number_ids(conversation: Conversation) -> dict[str | None, str | None]:
    """A new id for each id of a call, by their order: templates look up which call a result answers."""
    ids: dict[str | None, str | None] = {None: None}
    for message in conversation.messages:
        for call_id in (*[call.call_id for call in message.tool_calls], message.call_id):
            ids.setdefault(call_id, f"{len(ids):09d}")
    return ids


def _message_shape(message: Message, ids: Mapping[str | None, str | None], look_at: Callable[[Any], object]) -> object:
    content = _around(message.content)
    if not (message.tool_calls or message.thought or message.call_id):
        return message.role, content
    calls = tuple([(look_at(call.arguments), ids[call.call_id]) for call in message.tool_calls])
    return message.role, content, _around(message.thought), calls, ids[message.call_id]


def _is_empty(arguments: JsonObject) -> bool:
    return not arguments


def _kinds(value: Any) -> object:
    """The kinds of the values in a JSON value."""
    if isinstance(value, Mapping):
        return "object", tuple([_kinds(item) for item in value.values()])
    if isinstance(value, list | tuple):
        return "list", tuple([_kinds(item) for item in value])
    return bool(value) if isinstance(value, str) else type(value)


def _probe_value(value: Any) -> Any:
    """A JSON value of the same kinds."""
    if isinstance(value, Mapping):
        return {f"probekey{i}": _probe_value(item) for i, item in enumerate(value.values())}
    if isinstance(value, list | tuple):
        return [_probe_value(item) for item in value]
    return "probe" if isinstance(value, str) and value else value


def _around(text: str) -> tuple[str, str] | str:
    """The white space before and behind the words of a text, which some templates trim in some places; the whole text
    if it has no words."""
    words = text.strip()
    if not words:
        return text
    start = text.index(words)
    return (text[:start], text[start + len(words) :]) if len(words) < len(text) else _BARE


_BARE = ("", "")


def _probe(conversation: Conversation, num_messages: int, shape: _Shape) -> tuple[list[Message], list[JsonObject]]:
    """The first messages with marks for words; the marks at a position do not depend on what comes behind it."""
    closely = isinstance(shape[0], str)
    tools: list[JsonObject] = [
        {"type": "function", "function": {"name": f"probe{i}", "description": "probe", "parameters": _PARAMETERS}}
        for i in range(len(conversation.tools))
    ]
    ids = _number_ids(conversation)
    messages = [_probe_message(m, i, ids, closely) for i, m in enumerate(conversation.messages[:num_messages])]
    return messages, list(conversation.tools) if closely else tools


_PARAMETERS = {"type": "object", "properties": {"probekey": {"type": "string", "description": "probe"}}}


def _probe_message(message: Message, number: int, ids: Mapping[str | None, str | None], closely: bool) -> Message:
    def marked(name: str, text: str) -> str:
        around = _around(text)
        return text if isinstance(around, str) else f"{chr(MARKS[0])}{name}{number}{chr(MARKS[1])}".join(around)

    def arguments(given: JsonObject) -> JsonObject:
        return dict(_probe_value(given)) if closely else {"probekey": "probe"} if given else {}

    calls = tuple(
        ToolCall(f"probe{i}", arguments(call.arguments), ids[call.call_id]) for i, call in enumerate(message.tool_calls)
    )
    return Message(
        message.role,
        marked("content", message.content),
        tool_calls=calls,
        call_id=ids[message.call_id],
        thought=marked("thought", message.thought),
    )


def _written_around(learned: str, probe: Message) -> tuple[str, ...] | None:
    """What the template writes around the words of the probe; None where it does not write each of them once."""
    rest, around = squeeze(learned), []
    for words in (squeeze(probe.thought), squeeze(probe.content)):
        if words:
            before, found, rest = rest.partition(words)
            if not found or words in rest:
                return None
            around.append(before)
    return tuple(around) if probe.tool_calls else (*around, rest)


def _span(text: str, tokens: Sequence[re.Match[str]], shown: _Turn, message: Message) -> Span | None:
    """The answer's span by its landmarks; None where the template writes other words around it than in the probe."""
    begin = tokens[shown.num_before - 1].end()
    start, end = begin + len(shown.lead), tokens[shown.num_through - 1].end()
    if text[begin:start] != shown.lead:
        return None
    # Words of the answer may be those of the generation prompt, which the answer then begins behind.
    if shown.other_lead and squeeze(text[begin : begin + 4 * len(shown.other_lead)]).startswith(shown.other_lead):
        return None
    learned = squeeze(text[start:end])
    words = [squeeze(part) for part in (message.thought, message.content) if part.strip()]
    due = "".join(part for pair in zip(shown.learned, words, strict=False) for part in pair)
    if message.tool_calls:
        return (start, end) if learned.startswith(due) and shows(learned[len(due) :], _calls_only(message)) else None
    return (start, end) if learned == due + shown.learned[-1] else None


def _calls_only(message: Message) -> Message:
    return Message("assistant", "", tool_calls=message.tool_calls)


def _recall(remembered: dict[_Shape, _Seen | None], shape: _Shape, see: Callable[[], _Seen | None]) -> _Seen | None:
    """What is remembered of the shape, or computed now. Threads may compute it at once: they get the same."""
    known = remembered.get(shape, remembered)
    if not isinstance(known, dict):
        return known
    seen = see()
    if len(remembered) >= _MOST_SHAPES:  # long conversations make ever new shapes
        remembered.clear()
    remembered[shape] = seen
    return seen
