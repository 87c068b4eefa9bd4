"""The tools that a file of the user's describes, and whether a call of one fits its JSON schema (draft 2020-12)."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from sft.absolute_paths import local_path, near_it
from sft.construction.value_schema import UnusableSchema, fits, schema_validator
from sft.data.formats.tool_calls import read_tools
from sft.errors import RecordError, UserError
from sft.schema import JsonObject
from sft.strict_json import read_json

UNKNOWN = "it calls a tool that is not there"
UNFIT = "the arguments of a call do not fit their schema"
_NO_ARGUMENTS: JsonObject = {"type": "object", "properties": {}}


def read_tool_file(given: str) -> tuple[JsonObject, ...]:
    """The tools of a JSON file, in OpenAI's form: a list of `{type: function, function: {name, parameters}}`.

    Raises:
        UserError: there is no such file, or names all that is wrong in it.
    """
    path = local_path(given)
    try:
        content = read_json(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise UserError(f"tools: there is no file {path}{near_it(path)}. Write the tools into it, as JSON.") from None
    except OSError as error:
        raise UserError(f"tools: {path} cannot be read: {error.strerror}. Give a file of JSON.") from None
    except ValueError as error:
        raise UserError(f"tools: {path} is no JSON: {error}. Write a list of tools in OpenAI's form.") from None
    if not isinstance(content, list) or not content:
        raise UserError(f"tools: {path} holds no list of tools. Write one, in OpenAI's form.")
    tools, problems = [], []
    for number, tool in enumerate(content, start=1):
        try:
            (read,) = read_tools({"tools": [tool]}, "tools")
            _check(read)
            tools.append(read)
        except RecordError as error:
            problems.append(f"tool {number}: {str(error).replace('tool 1 in ', '')}")
        except UnusableSchema as error:
            problems.append(f"tool {number}: its parameters are no JSON schema: {error}")
    counts = Counter(name_of(tool) for tool in tools)
    problems += [f"{num} tools have the name {name}" for name, num in counts.items() if num > 1]
    if problems:
        raise UserError(f"tools: {path}: {'; '.join(problems)}.")
    return tuple(tools)


def name_of(tool: JsonObject) -> str:
    """The name of a tool."""
    return str(tool["function"]["name"])


def call_problem(call: Any, tools: Sequence[JsonObject]) -> str | None:
    """Why `{name, arguments}` is no call of one of these tools; None if it is one."""
    if not isinstance(call, Mapping) or call.keys() != {"name", "arguments"}:
        return "a call has other keys than name, arguments"
    tool = next((tool for tool in tools if name_of(tool) == call["name"]), None)
    if tool is None:
        return UNKNOWN
    arguments, schema = call["arguments"], _schema_of(tool)
    if not isinstance(arguments, dict):
        return "the arguments of a call are no object"
    # A schema that says nothing of other arguments describes a function without them.
    known = schema.get("properties")
    is_closed = isinstance(known, Mapping) and not {"additionalProperties", "patternProperties"} & schema.keys()
    if is_closed and not arguments.keys() <= known.keys():
        return UNFIT
    try:
        return None if fits(arguments, schema) else UNFIT
    except UnusableSchema:
        return UNFIT


def _check(tool: JsonObject) -> None:
    schema = _schema_of(tool)
    if not isinstance(schema, dict):
        raise RecordError("its parameters are no JSON schema, which is an object")
    schema_validator(schema)
    if schema.get("type", "object") != "object":
        raise RecordError("its parameters are not of the type object")
    fits({}, schema)


def _schema_of(tool: JsonObject) -> Any:
    given = tool["function"].get("parameters")
    return _NO_ARGUMENTS if given in (None, {}) else given
