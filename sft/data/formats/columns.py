"""The columns of each format, under the format's own names, and known other names for them.

The names in `SourceConfig.columns` are those on the left. An alias is only used where the format is `auto`, or to
suggest which columns could be meant.
"""

from collections.abc import Mapping
from typing import NamedTuple

from sft.config import Format


class Column(NamedTuple):
    """One column of a format."""

    required: bool
    aliases: tuple[str, ...] = ()


Columns = Mapping[str, str]
"""The format's name of a column → the source's name, where they differ."""

_SYSTEM = Column(False, ("system_prompt",))

COLUMNS: dict[Format, dict[str, Column]] = {
    "instruction": {
        "instruction": Column(True, ("definition",)),
        "input": Column(False, ("context", "inputs")),
        "output": Column(True, ("response", "answer", "completion", "targets", "target")),
        "system": _SYSTEM,
    },
    "prompt_completion": {
        "prompt": Column(True, ("inputs", "input", "question", "query", "problem")),
        "completion": Column(True, ("targets", "target", "output", "response", "answer", "solution")),
        "tools": Column(False),
        "system": _SYSTEM,
    },
    "messages": {
        "messages": Column(True, ("conversations", "conversation")),
        "tools": Column(False),
        "system": _SYSTEM,
    },
    "sharegpt": {
        "conversations": Column(True, ("messages", "conversation")),
        "tools": Column(False),
        "system": _SYSTEM,
    },
    "super_natural_instructions": {"Definition": Column(True), "Instances": Column(True)},
    "seed_tasks": {"instruction": Column(True), "instances": Column(True)},
    "tokens": {
        "input_ids": Column(True),
        "labels": Column(False),
        "loss_mask": Column(False, ("completion_mask", "assistant_masks")),
        "attention_mask": Column(False),
    },
}

SINGLE_TURN: tuple[Format, ...] = ("instruction", "prompt_completion")

SINGLE_TURN_NAMES = frozenset(
    spelled
    for form in SINGLE_TURN
    for name, column in COLUMNS[form].items()
    for spelled in (name, *column.aliases)
    if name != "tools"
)
"""Columns by these names are a part of the prompt or an answer: none of them is dropped silently."""


def column_of(columns: Columns, name: str) -> str:
    """The column that holds what the format calls `name`."""
    return columns.get(name, name)


def optional_column(columns: Columns, name: str) -> str | None:
    """The same for an optional column; None where the column of that name has another use: no text is read twice."""
    return columns.get(name) or (None if name in columns.values() else name)
