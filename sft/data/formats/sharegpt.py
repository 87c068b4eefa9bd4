"""ShareGPT's conversations: a list of {from, value}, with function_call and observation for tools.

    {from: human, value: "Rain?"}                                          →  user       "Rain?"
    {from: function_call, value: '{"name": "rain", "arguments": {}}'}      →  assistant  "" + call of rain
    {from: observation, value: "no"}                                       →  tool       "no"
    {from: gpt, value: "No."}                                              →  assistant  "No."

A call ends the assistant's turn that it follows. An answer and its calls, or several calls, are one turn, unless only
some of them are marked to be learned.
"""

from collections.abc import Mapping
from dataclasses import replace

from sft.data.formats.columns import Columns, column_of
from sft.data.formats.text_fields import check_text, kind_of
from sft.data.formats.tool_calls import parse_json, read_call
from sft.data.formats.turns import Turn, build_turn, join_turns, read_role, read_turns
from sft.errors import RecordError
from sft.schema import JsonObject, Message, Role, ToolCall

CALL = "function_call"

ROLES: dict[str, Role] = {
    "system": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "assistant": "assistant",
    "bot": "assistant",
    "model": "assistant",
    CALL: "assistant",
    "observation": "tool",
    "tool": "tool",
    "function_response": "tool",
}


def read_sharegpt(fields: JsonObject, columns: Columns, repair: bool = False) -> tuple[Message, ...]:
    """The turns of a conversation in ShareGPT's form; with `repair` see `sft.data.formats.turns`.

    Raises:
        RecordError: a turn cannot be used, or they are out of order.
    """
    turns: list[Turn] = []
    for number, turn in enumerate(read_turns(fields, column_of(columns, "conversations")), start=1):
        read = _read_turn(number, turn)
        before = turns[-1].message if turns else None
        if turn["from"] == CALL and before and before.role == "assistant" and before.train == read.message.train:
            calls = before.tool_calls + read.message.tool_calls
            turns[-1] = Turn(turns[-1].number, replace(before, tool_calls=calls))
        else:
            turns.append(read)
    return join_turns(turns, fields, columns, repair)


def _read_turn(number: int, turn: JsonObject) -> Turn:
    what = f"message {number}"
    role = read_role(turn, "from", ROLES, what)
    if turn["from"] == CALL:
        return build_turn(number, role, "", turn, _read_calls(turn, what))
    return build_turn(number, role, check_text(turn.get("value"), f"the value of {what}"), turn)


def _read_calls(turn: JsonObject, what: str) -> tuple[ToolCall, ...]:
    calls = parse_json(turn.get("value"), f"the value of {what}")
    if isinstance(calls, Mapping):
        return (read_call(calls, f"the call in {what}"),)
    if not isinstance(calls, list) or not calls:
        raise RecordError(f"the value of {what} is {kind_of(calls)}, not a call with name and arguments")
    return tuple(read_call(call, f"call {n} in {what}") for n, call in enumerate(calls, start=1))
