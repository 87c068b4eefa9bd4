"""A file of records that people review: where each one lies, its id and its task, and how doubtful it is.

    DATA/records.jsonl ─open_records─▶ RecordSet ─▶ Entry of each ;  read(id) ─▶ its fields, from the disk

DATA is a folder that `sft construct` has made, or any file of JSON lines. The records stay on the disk.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple

from sft.approval.own_files import DECISIONS, RECORDS
from sft.draft import is_made, record_id
from sft.errors import UserError
from sft.json_lines import read_object
from sft.schema import JsonObject

_MOST_RARE = 0.5
_BUFFER_BYTES = 1 << 17
"""Lines of a large file come in half the time that they take by a buffer of the usual 8 KiB."""
_BEGINS, _MESSAGES = b'{"id": "', b'", "messages": ['
_ID_END = len(_BEGINS) + 24
_DECODER = json.JSONDecoder()
_TASK = b'], "task": "'
_SCORES, _NO_SCORES = b', "scores": {', b', "scores": {}}}\n'


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

    def __init__(self, path: Path, entries: Sequence[Entry], num_unreadable: int = 0) -> None:
        self.path = path
        self.num_unreadable = num_unreadable
        """Lines that are no JSON object, or one that is nested too deep (`sft.nesting`): nobody can review them, and
        they are never approved."""
        self._entries = {entry.id: entry for entry in reversed(entries)}
        self.entries = sorted(self._entries.values(), key=attrgetter("offset"))
        """In the order of the file."""
        self.num_lines = num_unreadable + len(entries)

    def __contains__(self, record: object) -> bool:
        return record in self._entries

    def __len__(self) -> int:
        return len(self._entries)

    def entry(self, record: str) -> Entry:
        """The entry of a record that is here."""
        return self._entries[record]

    def read(self, record: str) -> JsonObject | None:
        """The fields, from the disk; None if another record stands there now."""
        with self.path.open("rb") as file:
            file.seek(self._entries[record].offset)
            fields = read_object(file.readline())
        return fields if fields is not None and identity(fields) == record else None


class Place(NamedTuple):
    """Where a set of records and what is decided about them lie."""

    records: Path
    decisions: Path


def find_place(data: Path) -> Place:
    """The files of DATA.

    Raises:
        UserError: it is neither a folder with records nor a file, or nobody here may look.
    """
    needed = "give a folder of `sft construct`, or a file of JSON lines."
    try:
        is_folder = data.is_dir()
        is_file = (data / RECORDS if is_folder else data).is_file()
    except OSError as error:
        raise UserError(f"{data} cannot be read: {error.strerror or error}.") from error
    if not is_file:
        raise UserError(f"{data} has no {RECORDS}: {needed}" if is_folder else f"{data} is not there: {needed}")
    data = data / RECORDS if is_folder else data
    name = DECISIONS if data.name == RECORDS else f"{data.name.removesuffix('.jsonl')}.{DECISIONS}"
    return Place(data, data.with_name(name))


def open_records(path: Path, *, trust: bool = False) -> RecordSet:
    """Read through the file once.

    Args:
        path: the file.
        trust: take the id that `Draft.as_json` has written, which is several times as fast. It may be wrong in a line
            that somebody has changed: `RecordSet.read` then does not find the record.

    Raises:
        UserError: it cannot be read, or has no record.
    """
    unreadable = offset = 0
    # Each in a list of its own: the collector of cycles would look at very many tuples, again and again.
    ids, names, doubts, offsets = list[str](), list[str](), list[float](), list[int]()
    tasks: dict[bytes, str] = {}
    for line in _lines(path):
        known = _glance(line, tasks) if trust else None
        if known is None and (fields := read_object(line)) is not None:
            known = identity(fields), task_of(fields), _doubt(_scores(fields))
        if known is not None:
            ids.append(known[0])
            names.append(known[1])
            doubts.append(known[2])
            offsets.append(offset)
        elif not line.isspace():
            unreadable += 1
        offset += len(line)
    if not ids:
        raise UserError(f"{path} holds no record: each line has to be a JSON object, and not compressed.")
    sizes = Counter(names)
    mean = len(ids) / len(sizes)
    rare = {task: _MOST_RARE * max(0.0, 1 - size / mean) for task, size in sizes.items()}
    risks = [doubt + rare[task] for doubt, task in zip(doubts, names, strict=True)]
    return RecordSet(path, [*map(Entry, ids, names, risks, offsets)], unreadable)


def read_lines(path: Path) -> Iterator[tuple[int, JsonObject | None]]:
    """The offset and the fields of each line that is not blank; None for one that is no JSON object.

    Raises:
        UserError: the file cannot be read.
    """
    offset = 0
    for line in _lines(path):
        if not line.isspace():
            yield offset, read_object(line)
        offset += len(line)


def _lines(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb", buffering=_BUFFER_BYTES) as file:
            yield from file
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}.") from error


def identity(fields: JsonObject) -> str:
    """The id of a record by all that may be trained of it, in any format.

    A source may name any column, for a text or for the task. So every field counts but those that stand beside: a
    written `id`, an `approval`, a `provenance`, and the `evidence` of a record that a teacher has made.
    """
    beside = beside_content(fields)
    trained = {name: value for name, value in fields.items() if name not in beside}
    return record_id(trained if isinstance(fields.get("messages"), list) else {"messages": trained})


def beside_content(fields: JsonObject) -> set[str]:
    """The names that are no part of what the id is made of."""
    return {"id", "approval", *(name for name in _beside_a_draft(fields) if isinstance(fields.get(name), Mapping))}


def _beside_a_draft(fields: JsonObject) -> tuple[str, ...]:
    return ("provenance", "evidence") if is_made(fields) else ("provenance",)


def task_of(fields: JsonObject) -> str:
    """The name of its task; empty where it has none."""
    task = fields.get("task")
    return _one_line(task) if isinstance(task, str) else ""


def _glance(line: bytes, tasks: dict[bytes, str]) -> tuple[str, str, float] | None:
    """Id, task and doubt of a line as `Draft.as_json` writes it, without parsing it; None for any other.

    A quote in a text of JSON follows a backslash. So none of these marks can be inside of a text. `tasks` are the names
    that were read before: of so many lines, little may be made of each.
    """
    if not (line.startswith(_BEGINS) and line.startswith(_MESSAGES, _ID_END) and line.endswith(b"}}}\n")):
        return None
    at = line.find(_TASK) + len(_TASK)
    scores_at = -1 if line.endswith(_NO_SCORES) else line.rfind(_SCORES)
    if at < len(_TASK) or 0 <= scores_at < at:
        return None
    name = line[at : line.find(b'"', at)]
    try:
        if (task := tasks.get(name)) is None:
            if b"\\" in name:
                return None
            task = tasks[name] = _one_line(name.decode())
        scores = _DECODER.raw_decode(line[scores_at + len(_SCORES) - 1 : -3].decode())[0] if scores_at >= 0 else None
        return line[len(_BEGINS) : _ID_END].decode(), task, _doubt(scores)
    except ValueError:
        return None


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _scores(fields: JsonObject) -> Any:
    provenance = fields.get("provenance")
    return provenance.get("scores") if isinstance(provenance, Mapping) else None


def _doubt(scores: Any) -> float:
    """How far the judge's grade lies below the best, and how near another record lies."""
    if not isinstance(scores, dict) or not scores:
        return 0.0
    judge, similarity = _share(scores.get("judge")), _share(scores.get("similarity"))
    return (0.0 if judge is None else 1 - judge) + (similarity or 0.0)


def _share(value: Any) -> float | None:
    return min(1.0, max(0.0, float(value))) if isinstance(value, int | float) else None
