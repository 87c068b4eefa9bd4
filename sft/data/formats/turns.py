"""Joins single turns into a conversation: who may speak after whom, and which answers are learned.

    system?  greeting?  (user  answer  (tool …  answer)*)+        greeting, answer: assistant turns

A tool turn follows an answer that calls tools, or another tool turn. Turns in any other order are refused, unless they
are to be repaired: then consecutive user turns are joined, and none is left behind the last answer.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from sft.data.formats.columns import Columns, optional_column
from sft.data.formats.text_fields import check_text, kind_of, read_optional_text
from sft.data.formats.tool_calls import parse_json
from sft.errors import RecordError
from sft.schema import JsonObject, Message, Role, ToolCall


class Turn(NamedTuple):
    """A message and its number in the record, from 1, so that people can find it there."""

    number: int
    message: Message


_NEXT: dict[Role | None, tuple[Role, ...]] = {
    None: ("system", "user", "assistant"),
    "system": ("user", "assistant"),
    "user": ("assistant",),
    "assistant": ("user",),
    "tool": ("tool", "assistant"),
}
"""Role → the roles that may follow; None is the beginning. Whether a tool turn may follow depends on the calls."""

_IN_WORDS: dict[Role, str] = {
    "system": "a system turn",
    "user": "a user turn",
    "assistant": "an assistant turn",
    "tool": "a tool turn",
}


def read_turns(fields: JsonObject, column: str) -> list[JsonObject]:
    """The field's turns, each an object; the field is a list, or text that holds one as JSON.

    Raises:
        RecordError: the field is missing or not a list, or a turn is not an object.
    """
    if column not in fields:
        raise RecordError(f"the field {column!r} is missing")
    turns = fields[column]
    if isinstance(turns, str) and turns.lstrip().startswith("["):
        turns = parse_json(turns, f"the field {column!r}")
    if not isinstance(turns, list):
        raise RecordError(f"the field {column!r} holds {kind_of(turns)}, not a list of messages")
    for number, turn in enumerate(turns, start=1):
        if not isinstance(turn, Mapping):
            raise RecordError(f"message {number} is {kind_of(turn)}, not an object")
    return turns


def holds_turns(value: Any) -> bool:
    """Whether a prompt or a completion is a list of messages, or text that is nothing but such a list, as JSON."""
    if not isinstance(value, str):
        return isinstance(value, list)
    if not value.lstrip().startswith("["):
        return False
    try:
        turns = parse_json(value, "it")
    except RecordError:
        return False
    return bool(turns) and all(
        isinstance(turn, Mapping) and "role" in turn and ("content" in turn or "tool_calls" in turn) for turn in turns
    )


def read_role(turn: JsonObject, key: str, known: Mapping[str, Role], what: str) -> Role:
    """The role of the turn, by our name for it.

    Raises:
        RecordError: it has none, or an unknown one.
    """
    spelled = turn.get(key)
    if not isinstance(spelled, str):
        has = f"no {key!r}" if spelled is None else f"{kind_of(spelled)} as its {key!r}"
        raise RecordError(f"{what} has {has}; needed: one of {', '.join(known)}")
    if spelled not in known:
        raise RecordError(f"{what} has the role {spelled[:40]!r}; known: {', '.join(known)}")
    return known[spelled]


def build_turn(
    number: int,
    role: Role,
    content: str,
    turn: JsonObject,
    tool_calls: tuple[ToolCall, ...] = (),
    call_id: str | None = None,
) -> Turn:
    """The message of a turn whose content, calls and role are read, with its thought and its train mark.

    Raises:
        RecordError: a prompt or an answer is empty, a mark is wrong, or thinking is not in an answer.
    """
    what = f"message {number}"
    if tool_calls and role != "assistant":
        raise RecordError(f"{what} is {_IN_WORDS[role]} that calls a tool; only an assistant turn may")
    if not content.strip() and not tool_calls and role in ("user", "assistant"):
        raise RecordError(f"the {'answer' if role == 'assistant' else 'prompt'} in {what} is empty")
    thought, reasoning = "", turn.get("reasoning_content")
    if reasoning is not None and check_text(reasoning, f"the reasoning_content of {what}").strip():
        if role != "assistant":
            raise RecordError(f"{what} is {_IN_WORDS[role]} with reasoning_content; only an assistant turn may have it")
        thought = reasoning
    return Turn(number, Message(role, content, _read_train(turn, role, what), tool_calls, call_id, thought))


def join_turns(
    turns: Sequence[Turn], fields: JsonObject, columns: Columns, repair: bool = False
) -> tuple[Message, ...]:
    """The messages of the conversation, after the text of the column `system` if there is one.

    Raises:
        RecordError: the turns are out of order, there is no user turn, or no answer is learned.
    """
    turns = _repair(turns) if repair else turns
    previous: Message | None = None
    for number, message in turns:
        _check_order(number, message, previous)
        previous = message
    messages = tuple(turn.message for turn in turns)
    if previous is None or previous.role != "assistant":
        raise RecordError("the conversation does not end in an answer")
    if not any(message.role == "user" for message in messages):
        raise RecordError("the conversation has no user turn")
    if not any(message.role == "assistant" and message.train for message in messages):
        raise RecordError("no answer of the conversation is to be learned: all are marked")
    column = optional_column(columns, "system")
    system = read_optional_text(fields, column)
    if not system:
        return messages
    if messages[0].role != "system":
        return (Message("system", system), *messages)
    if messages[0].content != system:
        raise RecordError(f"the field {column!r} and message 1 hold two different system texts")
    return messages


def _repair(turns: Sequence[Turn]) -> list[Turn]:
    """Join consecutive user turns, with a blank line between them; leave out those at the end."""
    repaired: list[Turn] = []
    for turn in turns:
        if repaired and repaired[-1].message.role == turn.message.role == "user":
            number, before = repaired[-1]
            content = f"{before.content}\n\n{turn.message.content}"
            repaired[-1] = Turn(number, replace(before, content=content))
        else:
            repaired.append(turn)
    return repaired[:-1] if repaired and repaired[-1].message.role == "user" else repaired


def _check_order(number: int, message: Message, previous: Message | None) -> None:
    role = message.role
    before = None if previous is None else previous.role
    if role in _NEXT[before] or (role == "tool" and previous is not None and previous.tool_calls):
        return
    if role == "system":
        raise RecordError(f"message {number} is a system turn; only the first may be one")
    if role == "tool" or before is None:
        raise RecordError(f"message {number} is a tool turn, but no call is before it")
    needed = " or ".join(_IN_WORDS[allowed] for allowed in _NEXT[before])
    raise RecordError(f"message {number} is {_IN_WORDS[role]} behind {_IN_WORDS[before]}; needed there: {needed}")


def _read_train(turn: JsonObject, role: Role, what: str) -> bool:
    """Whether the turn is learned: its `train`, or its `weight`, which is OpenAI's name for it."""
    train, weight = turn.get("train"), turn.get("weight")
    if train is not None and not isinstance(train, bool):
        raise RecordError(f"{what} has {kind_of(train)} as its 'train'; needed: true or false")
    if weight is not None:
        if not isinstance(weight, int | float) or weight not in (0, 1):
            given = weight if isinstance(weight, int | float) else kind_of(weight)
            raise RecordError(f"{what} has {given} as its 'weight'; needed: 0 or 1")
        if train is not None and train != bool(weight):
            raise RecordError(f"{what} has both 'train' and 'weight', and they differ")
        train = bool(weight)
    if train and role != "assistant":
        raise RecordError(f"{what} is {_IN_WORDS[role]} that is marked to be learned; only answers are")
    # Prompts are never learned, so their mark changes nothing and equal prompts stay equal.
    return train is not False or role != "assistant"
