"""Turns a record into a conversation. Total or counted: what cannot be turned raises `RecordError` with the reason.

instruction         instruction (+ input) → output        one user turn, one answer
prompt_completion   prompt → completion                   one user turn, one answer
messages            a list of {role, content}             as many turns as there are
"""

from collections.abc import Mapping
from typing import Any

from sft.config import SourceConfig, TaskColumn
from sft.errors import UserError
from sft.schema import Conversation, Message, Record

_COLUMNS = {
    "instruction": {"instruction": True, "input": False, "output": True},
    "prompt_completion": {"prompt": True, "completion": True},
    "messages": {"messages": True},
}
"""The columns of each format, and whether a record must have them."""

_ROLES = ("system", "user", "assistant", "tool")


class RecordError(ValueError):
    """This record cannot be used; the text is the reason."""


def check_columns(source: SourceConfig, record: Record) -> None:
    """Compare the source's columns with its first record.

    Raises:
        UserError: a column is not there; the message names those that are.
    """
    known = _COLUMNS[source.format]
    problems = []
    for name in source.columns:
        if name not in known:
            problems.append(f"columns.{name}: the format {source.format} has no {name!r}, only {', '.join(known)}")
    needed = {source.columns.get(name, name): name for name, must in known.items() if must or name in source.columns}
    if isinstance(source.task, TaskColumn):
        needed[source.task.column] = "task"
    for column, name in needed.items():
        if column not in record.fields:
            problems.append(f"there is no column {column!r} (for {name})")
    if problems:
        there = ", ".join(record.fields)
        example = f"{{{next(iter(known))}: {next(iter(record.fields), '…')}}}"
        way_out = f"The columns there: {there}. Map them, such as columns: {example}."
        raise UserError(f"source {source.name}: {record.where}: {'; '.join(problems)}. {way_out}")


def format_record(record: Record, source: SourceConfig) -> Conversation:
    """The record as a conversation that ends in an answer.

    Raises:
        RecordError: a field is missing, of the wrong type or empty, or the turns are out of order.
    """
    fields = record.fields
    column = {name: source.columns.get(name, name) for name in _COLUMNS[source.format]}
    if source.format == "messages":
        messages = _read_messages(_field(fields, column["messages"], list))
    elif source.format == "instruction":
        instruction = _text(fields, column["instruction"])
        extra = _optional_text(fields, column["input"])
        prompt = f"{instruction}\n\n{extra}" if extra.strip() else instruction
        messages = (Message("user", prompt), Message("assistant", _text(fields, column["output"])))
    else:
        prompt, completion = _text(fields, column["prompt"]), _text(fields, column["completion"])
        messages = (Message("user", prompt), Message("assistant", completion))
    return Conversation(messages, _task(fields, source), record.source, record.index, record.where)


def _task(fields: Mapping[str, Any], source: SourceConfig) -> str:
    if isinstance(source.task, TaskColumn):
        return _text(fields, source.task.column)
    return source.task or source.name


def _read_messages(turns: list[Any]) -> tuple[Message, ...]:
    messages: list[Message] = []
    for i, turn in enumerate(turns):
        if not isinstance(turn, Mapping):
            raise RecordError(f"message {i + 1} is a {type(turn).__name__}, not an object with role and content")
        role, content = turn.get("role"), turn.get("content")
        if role not in _ROLES:
            raise RecordError(f"message {i + 1} has the role {role!r}; known: {', '.join(_ROLES)}")
        if not isinstance(content, str):
            raise RecordError(f"message {i + 1} has a {type(content).__name__} as its content, not text")
        _check_whole(content, f"message {i + 1}")
        if role == "system" and i > 0:
            raise RecordError(f"message {i + 1} is a system turn; only the first may be one")
        if role == "assistant" and not content.strip():
            raise RecordError(f"the answer in message {i + 1} is empty")
        messages.append(Message(role, content))
    if not messages or messages[-1].role != "assistant":
        raise RecordError("the conversation does not end in an answer")
    if not any(m.role == "user" for m in messages):
        raise RecordError("the conversation has no user turn")
    return tuple(messages)


def _field(fields: Mapping[str, Any], column: str, kind: type) -> Any:
    if column not in fields:
        raise RecordError(f"the field {column!r} is missing")
    value = fields[column]
    if not isinstance(value, kind):
        raise RecordError(f"the field {column!r} holds a {type(value).__name__}, not {_KINDS[kind]}")
    if isinstance(value, str):
        _check_whole(value, f"the field {column!r}")
    return value


_KINDS: dict[type, str] = {str: "text", list: "a list of messages"}


def _check_whole(text: str, what: str) -> None:
    """JSON can spell half of a surrogate pair, mostly where a text was cut. No tokenizer can read it."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise RecordError(f"{what} holds half of a surrogate pair at character {error.start + 1}: not text") from None


def _text(fields: Mapping[str, Any], column: str) -> str:
    value: str = _field(fields, column, str)
    if not value.strip():
        raise RecordError(f"the field {column!r} is empty")
    return value


def _optional_text(fields: Mapping[str, Any], column: str) -> str:
    return "" if fields.get(column) is None else str(_field(fields, column, str))
