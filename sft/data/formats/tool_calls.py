"""The tools that an assistant may call, and its calls, in the one form that chat templates expect.

    {name, description, parameters}    →    {type: function, function: {name, description, parameters}}
    {name, arguments}                  →    ToolCall(name, arguments: an object)

Tools and arguments may come as JSON or as text that holds JSON. Calls are not checked against the schema of their tool:
an answer may call a tool wrongly and be marked not to be learned.
"""

from collections.abc import Mapping
from typing import Any

from sft.data.formats.text_fields import check_json, check_text, kind_of
from sft.data.reading.json_values import parse_json_text
from sft.errors import RecordError
from sft.schema import JsonObject, ToolCall


def read_tools(fields: JsonObject, column: str | None) -> tuple[JsonObject, ...]:
    """The tools in the field; none if there is no field, or it is null or empty.

    Raises:
        RecordError: it is not a list of tools with names.
    """
    what = f"the field {column!r}"
    given = None if column is None else fields.get(column)
    if given is None or given == "":
        return ()
    tools = parse_json(given, what)
    if not isinstance(tools, list):
        raise RecordError(f"{what} holds {kind_of(tools)}, not a list of tools")
    return tuple(_read_tool(tool, f"tool {number} in {what}") for number, tool in enumerate(tools, start=1))


def read_call(call: Any, what: str) -> ToolCall:
    """A call as OpenAI writes it, {id, function: {name, arguments}}, or only {name, arguments}.

    Raises:
        RecordError: it has no name, or its arguments are not an object.
    """
    if not isinstance(call, Mapping):
        raise RecordError(f"{what} is {kind_of(call)}, not an object with name and arguments")
    function = call if call.get("function") is None else call["function"]
    name = _read_name(function, what)
    given = function.get("arguments")
    arguments = {} if given is None or given == "" else parse_json(given, what)
    if not isinstance(arguments, Mapping):
        raise RecordError(f"the arguments of {what} are {kind_of(arguments)}, not an object")
    call_id = call.get("id")
    return ToolCall(name, arguments, None if call_id is None else check_text(call_id, f"the id of {what}"))


def parse_json(value: Any, what: str) -> Any:
    """The JSON that a text holds, or the value itself if it is not a text.

    Raises:
        RecordError: the text is not JSON, a text in it is broken, or a number is not finite.
    """
    if isinstance(value, str):
        try:
            value = parse_json_text(value)
        except (ValueError, RecursionError) as error:
            raise RecordError(f"{what} cannot be read as JSON: {error}") from None
    check_json(value, what)
    return value


def _read_tool(tool: Any, what: str) -> JsonObject:
    if not isinstance(tool, Mapping):
        raise RecordError(f"{what} is {kind_of(tool)}, not an object")
    if tool.get("function") is None:
        _read_name(tool, what)
        # OpenAI's older `functions` and ShareGPT's tools have no envelope, and may have a type of their own.
        return {"type": "function", "function": tool}
    if tool.get("type") not in (None, "function"):
        raise RecordError(f"{what} is of the type {str(tool['type'])[:40]!r}; known: 'function'")
    _read_name(tool["function"], what)
    return {**tool, "type": "function"}


def _read_name(function: Any, what: str) -> str:
    if not isinstance(function, Mapping):
        raise RecordError(f"the function of {what} is {kind_of(function)}, not an object")
    name = function.get("name")
    if name is None:
        raise RecordError(f"{what} has no name")
    if not check_text(name, f"the name of {what}").strip():
        raise RecordError(f"the name of {what} is empty")
    return str(name)
