"""Turns a record into a conversation. Total or counted: a record that cannot be turned raises `RecordError`.

    instruction                  instruction (+ input) → output        one user turn, one answer
    prompt_completion            prompt → completion                   one user turn, one answer; or lists of messages
    messages                     a list of {role, content}             as many turns as there are, tools
    sharegpt                     a list of {from, value}               as many turns as there are, tools
    super_natural_instructions   a task with its instances             a conversation for each instance
    seed_tasks                   a task with its instances             a conversation for each instance
    tokens                       input_ids with labels or loss_mask    an example, without rendering

The format and its columns are found or checked once, on a source's first records (`resolve_source`). A conversation has
a user turn and ends in an answer. The same turns make the same conversation, whatever their format was.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Literal

from sft.config import Format, SourceConfig
from sft.data.formats.columns import Columns, column_of, optional_column
from sft.data.formats.detection import check_columns, describe_source, resolve_source
from sft.data.formats.messages import read_messages, read_prompt_turns
from sft.data.formats.sharegpt import read_sharegpt
from sft.data.formats.single_turn import read_instruction, read_natural_instructions, read_prompt, read_seed_task
from sft.data.formats.task_files import expand_instances
from sft.data.formats.text_fields import check_text
from sft.data.formats.token_rows import read_token_row
from sft.data.formats.tool_calls import read_tools
from sft.data.formats.turns import holds_turns
from sft.errors import RecordError
from sft.schema import THOUGHT_END, THOUGHT_START, Conversation, JsonObject, Message, Record, TokenizedRecord

__all__ = ["check_columns", "describe_source", "expand_record", "format_record", "resolve_source"]

_CONVERSATIONS: Mapping[Format, Callable[[JsonObject, Columns, bool], tuple[Message, ...]]] = {
    "messages": read_messages,
    "sharegpt": read_sharegpt,
    "prompt_completion": read_prompt_turns,
}
"""The formats whose records have turns, which may be out of order."""

_READERS: Mapping[Format, Callable[[JsonObject, Columns], tuple[Message, ...]]] = {
    "instruction": read_instruction,
    "prompt_completion": read_prompt,
    "super_natural_instructions": read_natural_instructions,
    "seed_tasks": read_seed_task,
}

_INSTANCES: Mapping[str, str] = {"super_natural_instructions": "Instances", "seed_tasks": "instances"}
"""The formats whose records hold several examples → the column that holds them."""


_NOT_READ: Mapping[str, str] = {
    **dict.fromkeys(("image", "images"), "only text is trained on"),
    **dict.fromkeys(("video", "videos", "audio", "audios"), "only text is trained on"),
    "history": "earlier turns go into the format messages",
}
"""Columns that belong to the prompt in data sets of other tools."""


def expand_record(record: Record, source: SourceConfig) -> Iterator[Record]:
    """The records to format: one for each instance of a task file, otherwise the record itself."""
    name = _INSTANCES.get(source.format)
    return iter((record,)) if name is None else expand_instances(record, column_of(source.columns, name))


def format_record(
    record: Record, source: SourceConfig, turns: Literal["strict", "repair"] = "strict"
) -> Conversation | TokenizedRecord:
    """The record as a conversation that ends in an answer, or as token ids if it came as such.

    `source` was returned by `resolve_source`, `record` by `expand_record`. With `repair`, turns that are out of order
    are put right where `sft.data.formats.turns` can.

    Raises:
        RecordError: a field is missing, of the wrong type or empty, or the turns are out of order.
    """
    fields, form = record.fields, source.format
    assert form != "auto", "resolve_source finds the format"
    if form == "tokens":
        example = read_token_row(fields, source.columns)
        return TokenizedRecord(example, _read_task(fields, source), record.source, record.index, record.where)
    for column in _NOT_READ.keys() & fields.keys():
        if fields[column]:
            raise RecordError(f"the field {column!r} holds what cannot be read: {_NOT_READ[column]}")
    has_turns = _has_turns(form, fields, source.columns)
    if has_turns:
        messages, is_repaired = _read_conversation(form, fields, source.columns, turns == "repair")
    else:
        messages, is_repaired = _READERS[form](fields, source.columns), False
    has_tools = has_turns or "tools" in source.columns
    tools = read_tools(fields, optional_column(source.columns, "tools")) if has_tools else ()
    task, messages = _read_task(fields, source), tuple([_with_own_thought(message) for message in messages])
    return Conversation(messages, task, record.source, record.index, record.where, tools, is_repaired)


def _has_turns(form: Format, fields: JsonObject, columns: Columns) -> bool:
    if form == "prompt_completion":
        parts = [fields.get(column_of(columns, name)) for name in ("prompt", "completion")]
        # One text that holds messages may be a prompt about messages. Two such texts are not a prompt and an answer.
        return any(isinstance(part, list) for part in parts) or all(map(holds_turns, parts))
    return form in _CONVERSATIONS


def _read_conversation(
    form: Format, fields: JsonObject, columns: Columns, repair: bool
) -> tuple[tuple[Message, ...], bool]:
    """The messages, and whether they had to be repaired: turns that are in order stay unchanged."""
    read = _CONVERSATIONS[form]
    try:
        return read(fields, columns, False), False
    except RecordError:
        if not repair:
            raise
        return read(fields, columns, True), True


def _with_own_thought(message: Message) -> Message:
    """Move a thought in the usual form at the start of an answer to the message's thought: templates may write it
    differently.

    In any other form it stays part of the answer's words, so that joining both again gives exactly the same text.
    """
    if message.thought or message.role != "assistant" or not message.content.startswith(THOUGHT_START):
        return message
    thought, end, content = message.content.removeprefix(THOUGHT_START).partition(THOUGHT_END)
    if not end or not thought.strip() or not content.strip():
        return message
    return replace(message, thought=thought, content=content)


def _read_task(fields: JsonObject, source: SourceConfig) -> str:
    """The record's task. A whole number becomes its digits, whether it came as 3, 3.0 or "3"."""
    if isinstance(source.task, str) or (source.task is None and not source.constructed):
        return source.task or source.name
    # What `sft construct` makes names its task.
    column, default = (source.task.column, source.task.default) if source.task else ("task", source.name)
    # Super-NaturalInstructions gives its categories as a list; the first is the main one.
    value = fields.get(column)
    value = value[0] if isinstance(value, list) and value else value
    if isinstance(value, float):
        value = None if math.isnan(value) else int(value) if value.is_integer() else value  # pandas writes null as NaN
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    # A line break in a task name would break tables.
    task = "" if value is None or value == [] else " ".join(check_text(value, f"the field {column!r}").split())
    if not task and default is None:
        what = f"the field {column!r}, which names the task, is {'missing' if value is None else 'empty'}"
        raise RecordError(f"{what}; `default` of `task` is not given")
    return task or str(default)
