"""OpenAI's messages: a list of {role, content}, with calls of tools and their results.

    {role: user, content: "Rain?"}                                          →  user       "Rain?"
    {role: assistant, content: null, tool_calls: [{id: c1, function: …}]}   →  assistant  "" + call c1
    {role: tool, tool_call_id: c1, content: "no"}                           →  tool       "no", answers c1
    {role: assistant, content: "No."}                                       →  assistant  "No."

`developer` is another name of system, `function` of tool, and `function_call` is one call without an id. If a content
is a list of parts, their texts are joined; a picture cannot be used. `train: false`, or `weight: 0`, is kept: such an
answer is read but not learned. `reasoning_content` is the answer's thought.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from sft.data.formats.columns import Columns, column_of
from sft.data.formats.text_fields import check_text, kind_of
from sft.data.formats.tool_calls import read_call
from sft.data.formats.turns import Turn, build_turn, holds_turns, join_turns, read_role, read_turns
from sft.errors import RecordError
from sft.schema import JsonObject, Message, Role, ToolCall

_ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
    "function": "tool",
}


def read_messages(fields: JsonObject, columns: Columns, repair: bool = False) -> tuple[Message, ...]:
    """The turns of a conversation in OpenAI's form; with `repair` see `sft.data.formats.turns`.

    Raises:
        RecordError: a turn cannot be used, or they are out of order.
    """
    turns = read_turns(fields, column_of(columns, "messages"))
    return join_turns([_read_turn(number, turn) for number, turn in enumerate(turns, start=1)], fields, columns, repair)


def read_prompt_turns(fields: JsonObject, columns: Columns, repair: bool = False) -> tuple[Message, ...]:
    """The turns of a prompt and its completion, at least one of them a list of such messages, as in TRL.

    Answers in the prompt are not learned. With `repair` see `sft.data.formats.turns`.

    Raises:
        RecordError: a turn cannot be used, or they are out of order.
    """
    prompt, completion = column_of(columns, "prompt"), column_of(columns, "completion")
    asked = _as_turns(fields, prompt, "user")
    answered = _as_turns(fields, completion, "assistant")
    turns = [_read_turn(number, turn) for number, turn in enumerate((*asked, *answered), start=1)]
    if not any(turn.message.role == "assistant" for turn in turns[len(asked) :]):
        raise RecordError(f"the field {completion!r} holds no answer")
    for i, (number, message) in enumerate(turns[: len(asked)]):
        if message.role == "assistant":
            turns[i] = Turn(number, replace(message, train=False))
    return join_turns(turns, fields, columns, repair)


def _as_turns(fields: JsonObject, column: str, role: Role) -> list[JsonObject]:
    if isinstance(fields.get(column), str) and not holds_turns(fields[column]):
        return [{"role": role, "content": fields[column]}]
    return read_turns(fields, column)


def _read_turn(number: int, turn: JsonObject) -> Turn:
    what = f"message {number}"
    role = read_role(turn, "role", _ROLES, what)
    calls = _read_calls(turn, what)
    content = turn.get("content")
    text = "" if content is None and calls else _read_content(content, f"the content of {what}")
    call_id = turn.get("tool_call_id")
    if call_id is not None:
        call_id = check_text(call_id, f"the tool_call_id of {what}") if role == "tool" else None
    return build_turn(number, role, text, turn, calls, call_id)


def _read_content(content: Any, what: str) -> str:
    if not isinstance(content, list):
        return check_text(content, what)
    texts = []
    for number, part in enumerate(content, start=1):
        kind = part.get("type") if isinstance(part, Mapping) else None
        if kind != "text":
            given = f"of the type {kind[:40]!r}" if isinstance(kind, str) else "no object with a type"
            raise RecordError(f"part {number} of {what} is {given}; only text can be used")
        texts.append(check_text(part.get("text"), f"part {number} of {what}"))
    return "".join(texts)


def _read_calls(turn: JsonObject, what: str) -> tuple[ToolCall, ...]:
    calls, call = turn.get("tool_calls"), turn.get("function_call")
    if calls is not None and not isinstance(calls, list):
        raise RecordError(f"the tool_calls of {what} are {kind_of(calls)}, not a list")
    if call is None:
        return tuple(read_call(made, f"call {n} in {what}") for n, made in enumerate(calls or (), start=1))
    if calls:
        raise RecordError(f"{what} has both tool_calls and function_call")
    return (read_call(call, f"the call in {what}"),)
