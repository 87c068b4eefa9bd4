"""What a reviewer sees of a record, and the record that an edit makes: its texts by their places in the fields.

    {"messages": [{"role": "user", "content": "Sort: b a"}, …]}  ◀─▶  Text("messages.0.content", "user", "Sort: b a"), …
    {"instruction": "Sort.", "input": "b a", "output": "a b"}    ◀─▶  Text("instruction", "instruction", "Sort."), …

A place holds texts or it is shown as JSON, which nobody edits here: tool calls, schemas, the passage that is the
evidence.
"""

import copy
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from sft.approval.record_set import identity
from sft.config import SourceConfig, TaskColumn
from sft.data.formats.formatting import format_record, resolve_source
from sft.errors import RecordError, UserError
from sft.schema import JsonObject, Record, RecordLocation

_TURNS = {"messages": ("role", "content"), "conversations": ("from", "value")}
"""Columns that hold turns → the keys of who speaks, and of what is said."""
_ABOUT = ("id", "task", "provenance", "evidence", "tools", "dropped", "approval")


class Text(NamedTuple):
    """A text of a record."""

    place: str
    who: str
    """Who says it, or the name of the field."""
    text: str
    is_edited_here: bool = True


def texts_of(fields: JsonObject) -> list[Text]:
    """All that is trained of a record, in order."""
    return [*_texts(fields)]


def about(fields: JsonObject) -> dict[str, str]:
    """What stands beside the conversation, as JSON: tools, evidence, provenance."""
    return {name: _as_json(fields[name]) for name in ("tools", "evidence", "provenance") if fields.get(name)}


def edited(fields: JsonObject, texts: Mapping[str, str]) -> JsonObject:
    """The record with other texts, under the id of its content.

    Raises:
        RecordError: a place has no text that can be edited.
    """
    known = {text.place for text in _texts(fields) if text.is_edited_here}
    if unknown := sorted(texts.keys() - known):
        raise RecordError(f"there is no text to edit at {', '.join(unknown)}")
    made: dict[str, Any] = copy.deepcopy(dict(fields))
    for place, text in texts.items():
        column, *rest = place.split(".")
        if rest and column in _TURNS:
            made[column][int(rest[0])][rest[1]] = text
        else:
            made[place] = text
    if "id" in made:
        made["id"] = identity(made)
    return made


class Format:
    """How the records of a file are read for training."""

    def __init__(self, path: Path, first: JsonObject) -> None:
        """It is found from the first record; where none fits, nothing is checked."""
        source = SourceConfig(name="review", path=str(path))
        self._source: SourceConfig | None = None
        try:
            found = resolve_source(source, _record(first))
        except UserError:
            return
        task = TaskColumn(column="task", default="no task")
        self._source = found.model_copy(update={"task": task})

    def as_record(self, fields: JsonObject) -> tuple[Record, SourceConfig] | None:
        """The record and its source, for the pipeline of training; None where no format fits."""
        return None if self._source is None else (_record(fields), self._source)

    def why_not(self, fields: JsonObject) -> str:
        """Why a record cannot be trained on; empty where it can."""
        if self._source is None:
            return ""
        try:
            format_record(_record(fields), self._source)
        except RecordError as error:
            return str(error)
        return ""


def _texts(fields: JsonObject) -> Iterator[Text]:
    for name, value in fields.items():
        if name in _TURNS and isinstance(value, list):
            for i, turn in enumerate(value):
                yield from _turn(f"{name}.{i}", turn, *_TURNS[name])
        elif name not in _ABOUT:
            is_text = isinstance(value, str)
            yield Text(name, name, value if is_text else _as_json(value), is_text)


def _turn(place: str, turn: Any, speaker: str, said: str) -> Iterator[Text]:
    if not isinstance(turn, Mapping):
        yield Text(place, "?", _as_json(turn), False)
        return
    who = str(turn.get(speaker, "?"))
    content = turn.get(said)
    if isinstance(content, str):
        yield Text(f"{place}.{said}", who, content)
    elif content is not None:
        yield Text(f"{place}.{said}", who, _as_json(content), False)
    for name, value in turn.items():
        if name not in (speaker, said) and value:
            is_text = isinstance(value, str)
            yield Text(f"{place}.{name}", f"{who}: {name}", value if is_text else _as_json(value), is_text)


def _as_json(value: Any) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False)


def _record(fields: JsonObject) -> Record:
    return Record("review", 0, RecordLocation("records", 1), fields)
