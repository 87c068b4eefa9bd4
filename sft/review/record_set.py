"""A file of records that people review: where each one lies, its id and its task, and how doubtful it is.

    DATA/records.jsonl ─open_records─▶ RecordSet ─▶ Entry of each ;  read(id) ─▶ its fields, from the disk

DATA is a folder that `sft construct` has made, or any file of JSON lines. The records stay on the disk.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from sft.draft import record_id
from sft.errors import UserError
from sft.schema import JsonObject

_RECORDS = "records.jsonl"
_DECISIONS = "decisions.jsonl"
_NOT_TRAINED = ("id", "provenance", "evidence")
_MOST_RARE = 0.5


class Entry(NamedTuple):
    """What is known of a record without reading it again."""

    id: str
    task: str
    risk: float
    """How doubtful it is: 0 where nothing speaks against it."""
    offset: int
    """Of its line in the file, in bytes."""


class RecordSet:
    """The records of a file, by their ids; of equal records the first."""

    def __init__(self, path: Path, entries: Iterable[Entry], num_unreadable: int = 0) -> None:
        self.path = path
        self.num_unreadable = num_unreadable
        """Lines that are no JSON object: nobody can review them, and they are never approved."""
        self._entries: dict[str, Entry] = {}
        self.num_lines = num_unreadable
        for entry in entries:
            self._entries.setdefault(entry.id, entry)
            self.num_lines += 1
        self._by_offset = {entry.offset: entry for entry in self._entries.values()}

    @property
    def entries(self) -> list[Entry]:
        """In the order of the file."""
        return [*self._entries.values()]

    def __contains__(self, record: str) -> bool:
        return record in self._entries

    def __len__(self) -> int:
        return len(self._entries)

    def entry(self, record: str) -> Entry:
        """The entry of a record that is here."""
        return self._entries[record]

    def at(self, offset: int) -> Entry | None:
        """The record whose line begins there; None where none does that counts."""
        return self._by_offset.get(offset)

    def read(self, record: str) -> JsonObject | None:
        """The fields, from the disk; None if another record stands there now."""
        with self.path.open("rb") as file:
            file.seek(self._entries[record].offset)
            fields = _parsed(file.readline())
        return fields if fields is not None and identity(fields) == record else None


class Place(NamedTuple):
    """Where a set of records and what is decided about them lie."""

    records: Path
    decisions: Path


def find_place(data: Path) -> Place:
    """The files of DATA.

    Raises:
        UserError: it is neither a folder with records nor a file.
    """
    if data.is_dir():
        if not (data / _RECORDS).is_file():
            raise UserError(f"{data} has no {_RECORDS}: give a folder of `sft construct`, or a file of JSON lines.")
        data = data / _RECORDS
    if not data.is_file():
        raise UserError(f"{data} is not there: give a folder of `sft construct`, or a file of JSON lines.")
    name = _DECISIONS if data.name == _RECORDS else f"{data.name.removesuffix('.jsonl')}.{_DECISIONS}"
    return Place(data, data.with_name(name))


def open_records(path: Path) -> RecordSet:
    """Read through the file once.

    Raises:
        UserError: it cannot be read, or has no record.
    """
    unreadable = 0
    found: list[tuple[str, str, float, int]] = []
    try:
        for offset, fields in read_lines(path):
            if fields is None:
                unreadable += 1
            else:
                found.append((identity(fields), task_of(fields), _doubt(fields), offset))
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}.") from error
    if not found:
        raise UserError(f"{path} holds no record: each line has to be a JSON object.")
    sizes = Counter(task for _, task, _, _ in found)
    mean = len(found) / len(sizes)
    entries = (
        Entry(record, task, doubt + _MOST_RARE * max(0.0, 1 - sizes[task] / mean), offset)
        for record, task, doubt, offset in found
    )
    return RecordSet(path, entries, unreadable)


def read_lines(path: Path) -> Iterator[tuple[int, JsonObject | None]]:
    """The offset and the fields of each line that is not blank; None for one that is no JSON object."""
    offset = 0
    with path.open("rb") as file:
        for line in file:
            if not line.isspace():
                yield offset, _parsed(line)
            offset += len(line)


def identity(fields: JsonObject) -> str:
    """The id of a record by what is trained of it, in any format; a written `id` does not count."""
    if isinstance(fields.get("messages"), list):
        return record_id(fields)
    return record_id({"messages": {name: value for name, value in fields.items() if name not in _NOT_TRAINED}})


def task_of(fields: JsonObject) -> str:
    """The name of its task; empty where it has none."""
    task = fields.get("task")
    return " ".join(task.split()) if isinstance(task, str) else ""


def _doubt(fields: JsonObject) -> float:
    """From its provenance: how far the judge's grade lies below the best, and how near another record lies."""
    provenance = fields.get("provenance")
    scores = provenance.get("scores") if isinstance(provenance, Mapping) else None
    if not isinstance(scores, Mapping):
        return 0.0
    judge, similarity = _share(scores.get("judge")), _share(scores.get("similarity"))
    return (0.0 if judge is None else 1 - judge) + (similarity or 0.0)


def _share(value: Any) -> float | None:
    return min(1.0, max(0.0, float(value))) if isinstance(value, int | float) else None


def _parsed(line: bytes) -> JsonObject | None:
    try:
        fields = json.loads(line)
    except ValueError:
        return None
    return fields if isinstance(fields, dict) else None
