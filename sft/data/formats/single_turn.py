"""One user turn and one answer: instruction (+ input) → output, prompt → completion, and an instance of a task file.

    instruction           "Add the numbers."
    input                 "1 2"                  user       "Add the numbers.\n\n1 2"
    output                "3"              →     assistant  "3"

A field `system`, if there is one, becomes the system turn.
"""

from collections.abc import Mapping
from typing import Any

from sft.data.formats.columns import Columns, column_of, optional_column
from sft.data.formats.text_fields import kind_of, read_first_text, read_optional_text, read_text
from sft.errors import RecordError
from sft.schema import JsonObject, Message


def read_instruction(fields: JsonObject, columns: Columns) -> tuple[Message, ...]:
    """The turns of an instruction record.

    Raises:
        RecordError: a field cannot be used.
    """
    prompt = _join(
        read_text(fields, column_of(columns, "instruction")),
        read_optional_text(fields, optional_column(columns, "input")),
    )
    return _turns(fields, columns, prompt, read_text(fields, column_of(columns, "output")))


def read_prompt(fields: JsonObject, columns: Columns) -> tuple[Message, ...]:
    """The turns of a prompt and its completion, both of them texts.

    Raises:
        RecordError: a field cannot be used.
    """
    prompt = read_text(fields, column_of(columns, "prompt"))
    return _turns(fields, columns, prompt, read_text(fields, column_of(columns, "completion")))


def read_natural_instructions(fields: JsonObject, columns: Columns) -> tuple[Message, ...]:
    """The turns of the one instance of a Super-NaturalInstructions task; see `task_files`.

    Definition and output may be lists of texts; the first text is used. The positive examples are not trained on: they
    belong in the prompt when a model is measured with a few examples.

    Raises:
        RecordError: a field cannot be used.
    """
    definition = read_first_text(fields, column_of(columns, "Definition"))
    return _read_instance(definition, fields, column_of(columns, "Instances"))


def read_seed_task(fields: JsonObject, columns: Columns) -> tuple[Message, ...]:
    """The turns of the one instance of a self-instruct seed task; see `task_files`.

    Raises:
        RecordError: a field cannot be used.
    """
    instruction = read_text(fields, column_of(columns, "instruction"))
    return _read_instance(instruction, fields, column_of(columns, "instances"))


def _turns(fields: JsonObject, columns: Columns, prompt: str, answer: str) -> tuple[Message, ...]:
    turns = (Message("user", prompt), Message("assistant", answer))
    system = read_optional_text(fields, optional_column(columns, "system"))
    return (Message("system", system), *turns) if system else turns


def _read_instance(instruction: str, fields: JsonObject, column: str) -> tuple[Message, ...]:
    if column not in fields:
        raise RecordError(f"the field {column!r} is missing")
    instances = fields[column]
    if not isinstance(instances, list):
        raise RecordError(f"the field {column!r} holds {kind_of(instances)}, not a list of instances")
    if not instances:
        raise RecordError(f"the field {column!r} holds no instances")
    if len(instances) > 1:
        raise RecordError(f"the field {column!r} holds {len(instances)} instances; needed: a record for each")
    instance: Any = instances[0]
    if not isinstance(instance, Mapping):
        raise RecordError(f"the instance is {kind_of(instance)}, not an object with input and output")
    prompt = _join(instruction, read_optional_text(instance, "input"))
    return (Message("user", prompt), Message("assistant", read_first_text(instance, "output")))


def _join(instruction: str, extra: str) -> str:
    return f"{instruction}\n\n{extra}" if extra else instruction
