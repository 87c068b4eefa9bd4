"""Rewrites what a chat template has no form for: a conversation becomes one that the template writes whole.

    the template has no                    so it is written
    system turn                            in front of the first user turn, or as one before a greeting
    list of tools                          in the system turn, as text
    tool calls                             as <tool_call> at the end of the answer; results as user turns
    several tool calls in one turn         in turns of their own, each with its result behind it
    tool calls without an id of its form   with ids of nine characters, numbered by the call

What a template has a form for is found by rendering probes, not by reading it. Nothing of a conversation is left out
here, and a conversation that the template can write is returned unchanged.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple, Protocol

from sft.errors import RecordError
from sft.schema import Conversation, JsonObject, Message, ToolCall

WRITTEN_AS_TEXT = frozenset(
    f"<{slash}{tag}>" for tag in ("tool_call", "tool_response", "tools", "think") for slash in ("", "/")
)
"""What is put before and behind a thing that a template has no form for."""

BEFORE_TOOLS = "You may call these tools:\n<tools>\n"
END_OF_TOOLS = "\n</tools>"
"""Around the list of tools in the system turn, one a line."""
HOW_TO_CALL = (
    '\nCall a tool with:\n<tool_call>\n{"name": its name, "arguments": an object with its arguments}\n</tool_call>'
)
"""Behind the list, where calls are written so. A template with a form of its own is not contradicted."""


class RenderTemplate(Protocol):
    """Messages and tools → the template's text. It raises `RecordError` where the template refuses them."""

    def __call__(
        self, messages: Sequence[Message], tools: Sequence[JsonObject] = (), *, for_generation: bool = False
    ) -> str:
        """The text; `for_generation`: with the template's generation prompt at its end."""
        ...


@dataclass(frozen=True, slots=True)
class TemplateTraits:
    """What a chat template has a form for."""

    has_system: bool = True
    has_tool_list: bool = True
    has_tool_calls: bool = True
    """Calls and their results: one is useless without the other."""
    has_parallel_calls: bool = True
    """Several calls in one turn."""
    has_free_call_ids: bool = True
    """Calls may have any id, or none. Mistral's need one of nine characters."""
    calls_refused: str = field(default="", compare=False)
    """The template's own words where it refuses calls; empty where it only leaves them out."""


def derive_traits(render_template: RenderTemplate) -> TemplateTraits:
    """Find out what the template writes, by rendering probes."""

    def look(words: Sequence[str], messages: Sequence[Message], tools: Sequence[JsonObject] = ()) -> _Seen:
        try:
            text = render_template(messages, tools)
        except RecordError as error:
            return _Seen(False, str(error))
        return _Seen(all(word in text for word in words))

    user, answer = Message("user", "probequestion"), Message("assistant", "probeanswer")
    parameters = {"type": "object", "properties": {"probekey": {"type": "string", "description": "probekey"}}}
    tool = {"name": "probetool", "description": "probedescription", "parameters": parameters}
    tools = [{"type": "function", "function": tool}]
    has_tool_list = look(["probetool"], [user, answer], tools).is_shown

    def look_at_calls(call_id: str | None, num_calls: int = 1) -> _Seen:
        names = [f"probecall{i}" for i in range(num_calls)]
        calls = tuple(ToolCall(name, {"probekey": f"probevalue{name}"}, call_id) for name in names)
        results = [Message("tool", f"proberesult{name}", call_id=call_id) for name in names]
        words = [word for name in names for word in (name, f"probevalue{name}", f"proberesult{name}")]
        turns = [user, Message("assistant", "", tool_calls=calls), *results, answer]
        return look(words, turns, tools if has_tool_list else ())

    one_call = look_at_calls(_numbered_id(1))
    return TemplateTraits(
        has_system=look(["probesystem"], [Message("system", "probesystem"), user, answer]).is_shown,
        has_tool_list=has_tool_list,
        has_tool_calls=one_call.is_shown,
        has_parallel_calls=look_at_calls(_numbered_id(1), num_calls=2).is_shown,
        has_free_call_ids=all(look_at_calls(call_id).is_shown for call_id in ("call_probe_of_any_length", None)),
        calls_refused=one_call.refusal,
    )


class _Seen(NamedTuple):
    """The result of a probe."""

    is_shown: bool
    """Whether all of its words are in the text."""
    refusal: str = ""
    """The template's own words where it refused to write a text."""


def adapt(conversation: Conversation, traits: TemplateTraits) -> tuple[Conversation, tuple[str, ...]]:
    """The conversation, with what the template has no form for rewritten; and a sentence on each change, for people.

    Raises:
        RecordError: tools or arguments cannot be written as JSON, or a result answers no call.
    """
    notes = []
    for adaptation in _ADAPTATIONS:
        if adaptation.is_lacking(traits) and adaptation.concerns(conversation):
            conversation = adaptation.adapt(conversation)
            notes.append(adaptation.note)
            if adaptation.adapt is _write_calls_as_text and traits.calls_refused:
                notes.append(f"asked to write tool calls, {traits.calls_refused}")
    return conversation, tuple(notes)


def _has_calls(conversation: Conversation) -> bool:
    return any(message.tool_calls or message.role == "tool" for message in conversation.messages)


def _write_tools_in_system(conversation: Conversation, behind: str) -> Conversation:
    lines = "\n".join(_json(tool) for tool in conversation.tools)
    text = f"{BEFORE_TOOLS}{lines}{behind}"
    messages = conversation.messages
    if messages and messages[0].role == "system":
        first, rest = replace(messages[0], content=_joined(messages[0].content, text)), messages[1:]
    else:
        first, rest = Message("system", text), messages
    return replace(conversation, messages=(first, *rest), tools=())


def _write_calls_as_text(conversation: Conversation) -> Conversation:
    messages: list[Message] = []
    for before, message in zip((None, *conversation.messages), conversation.messages, strict=False):
        if message.role == "tool":
            response = f"<tool_response>\n{message.content}\n</tool_response>"
            if before is not None and before.role == "tool":
                messages[-1] = replace(messages[-1], content=f"{messages[-1].content}\n{response}")
            else:
                messages.append(Message("user", response))
        elif message.tool_calls:
            calls = [_json({"name": call.name, "arguments": call.arguments}) for call in message.tool_calls]
            written = [f"<tool_call>\n{call}\n</tool_call>" for call in calls]
            content = "\n".join([message.content, *written] if message.content.strip() else written)
            messages.append(replace(message, content=content, tool_calls=()))
        else:
            messages.append(message)
    return replace(conversation, messages=tuple(messages))


def _write_one_call_a_turn(conversation: Conversation) -> Conversation:
    """The text of a turn stays with its first call. A result goes with the call it names, else by its order."""
    messages: list[Message] = []
    rest = list(conversation.messages)
    while rest:
        message = rest.pop(0)
        if len(message.tool_calls) < 2:
            messages.append(message)
            continue
        results = []
        while rest and rest[0].role == "tool":
            results.append(rest.pop(0))
        for i, call in enumerate(message.tool_calls):
            messages.append(replace(message, content=message.content if i == 0 else "", tool_calls=(call,)))
            own = next((r for r in results if call.call_id is not None and r.call_id == call.call_id), None)
            own = own or next((r for r in results if r.call_id is None), None)
            if own is not None:
                results.remove(own)
                messages.append(own)
        if results:
            raise RecordError("a tool's result answers no call of the turn before it")
    return replace(conversation, messages=tuple(messages))


def _number_calls(conversation: Conversation) -> Conversation:
    """Ids by the order of the calls; a result gets the id of the call it names, or of the first without one.

    Calls may share an id: their results are in their order.
    """
    messages: list[Message] = []
    open_calls: list[tuple[str | None, str]] = []  # its own id, and its new one
    num_calls = 0
    for message in conversation.messages:
        if message.tool_calls:
            calls = []
            for call in message.tool_calls:
                num_calls += 1
                open_calls.append((call.call_id, _numbered_id(num_calls)))
                calls.append(replace(call, call_id=_numbered_id(num_calls)))
            message = replace(message, tool_calls=tuple(calls))
        elif message.role == "tool":
            named = [own for own in open_calls if message.call_id is not None and own[0] == message.call_id]
            answered = next(iter(named or open_calls), None)
            if answered:
                open_calls.remove(answered)
            message = replace(message, call_id=answered[1] if answered else _numbered_id(max(num_calls, 1)))
        messages.append(message)
    return replace(conversation, messages=tuple(messages))


def _write_system_in_user(conversation: Conversation) -> Conversation:
    """The system text goes before a greeting, as at inference: there it becomes a user turn of its own."""
    system, *rest = conversation.messages
    if rest and rest[0].role == "user":
        user = rest.pop(0)
        first = replace(user, content=_joined(system.content, user.content))
    else:
        first = replace(system, role="user")
    return replace(conversation, messages=(first, *rest))


class _Adaptation(NamedTuple):
    """One line of the table above."""

    is_lacking: Callable[[TemplateTraits], bool]
    concerns: Callable[[Conversation], bool]
    adapt: Callable[[Conversation], Conversation]
    note: str


# The list of tools comes before the system turn, because it is put into it.
_ADAPTATIONS = (
    _Adaptation(
        lambda traits: not (traits.has_tool_list or traits.has_tool_calls),
        lambda conversation: bool(conversation.tools),
        partial(_write_tools_in_system, behind=END_OF_TOOLS + HOW_TO_CALL),
        "the chat template has no list of tools: they are listed in the system turn",
    ),
    _Adaptation(
        lambda traits: not traits.has_tool_list and traits.has_tool_calls,
        lambda conversation: bool(conversation.tools),
        partial(_write_tools_in_system, behind=END_OF_TOOLS),
        "the chat template has no list of tools: they are listed in the system turn",
    ),
    _Adaptation(
        lambda traits: not traits.has_tool_calls,
        _has_calls,
        _write_calls_as_text,
        "the chat template has no tool calls: they are written as <tool_call> in the answer, results as user turns",
    ),
    _Adaptation(
        lambda traits: traits.has_tool_calls and not traits.has_parallel_calls,
        lambda conversation: any(len(message.tool_calls) > 1 for message in conversation.messages),
        _write_one_call_a_turn,
        "the chat template allows one tool call a turn: several are written one after another",
    ),
    _Adaptation(
        lambda traits: traits.has_tool_calls and not traits.has_free_call_ids,
        _has_calls,
        _number_calls,
        "the chat template needs ids of nine characters for tool calls: the calls are numbered",
    ),
    _Adaptation(
        lambda traits: not traits.has_system,
        lambda conversation: conversation.messages[0].role == "system",
        _write_system_in_user,
        "the chat template has no system turn: its text is put in front of the first user turn",
    ),
)


def _joined(first: str, second: str) -> str:
    return f"{first}\n\n{second}" if first.strip() else second


def _numbered_id(number: int) -> str:
    return f"{number:09d}"


def _json(value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError) as error:
        raise RecordError(f"a tool or its arguments cannot be written as JSON: {error}") from None
