"""Files of JSON lines that one process appends to while others read: the metrics, the ledger and the events of a run.

A line exists when its newline is there. What a killed process or a full disk has left behind the last newline is passed
over by readers, and cut off by whoever appends next.
"""

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Self, TypeVar

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Record = TypeVar("Record", bound="DataclassInstance")

_BLOCK_BYTES = 1 << 16
_NULLS: Mapping[Any, Any] = {float: math.nan, str: ""}


def append_line(path: Path, content: Mapping[str, Any]) -> None:
    """Add a line. When this returns it is with the operating system: a kill of the process does not lose it.

    Raises:
        OSError: it could not be written whole; what is there of it is no line.
    """
    with path.open("a+b") as file:
        if end := file.tell():
            file.seek(end - 1)
            if file.read(1) != b"\n":
                file.truncate(_end_of_last_line(file, end))
        file.write(json.dumps(content).encode() + b"\n")


def whole_lines(path: Path) -> Iterator[bytes]:
    """The lines, one at a time: a long run of many ranks has hundreds of megabytes."""
    with path.open("rb") as file:
        yield from (line for line in file if line.endswith(b"\n"))


class LineTail:
    """The lines of a growing file, as often as `read_new` is called: each time those that were added."""

    def __init__(self, path: Path, offset: int = 0) -> None:
        """The file may not be there yet. `offset` is where to begin, such as that of another tail."""
        self._path = path
        self.offset = offset
        """In bytes, behind the last line that was read."""

    @classmethod
    def near_end(cls, path: Path, num_bytes: int) -> Self:
        """Begin with the whole lines in the last `num_bytes` that are there."""
        offset = max(0, path.stat().st_size - num_bytes) if path.is_file() else 0
        if offset:
            with path.open("rb") as file:
                file.seek(offset - 1)
                offset += len(file.readline()) - 1  # behind the line that is cut there
        return cls(path, offset)

    def read_new(self, most_bytes: float = math.inf) -> list[bytes]:
        """Whole lines that were added since; no more when they have so many bytes."""
        lines: list[bytes] = []
        last = self.offset + most_bytes
        with suppress(FileNotFoundError), self._path.open("rb") as file:
            file.seek(self.offset)
            while self.offset < last and (line := file.readline()).endswith(b"\n"):
                lines.append(line)
                self.offset += len(line)
        return lines


def from_json(record: type[Record], content: Mapping[str, Any]) -> Record:
    """The record of a JSON object, of whichever version: what is not among its fields is passed over.

    Null is NaN where a number is needed, and empty where a text is.

    Raises:
        TypeError: this is no object, or a field is missing.
    """
    given = {}
    for name, field in record.__dataclass_fields__.items():
        if name in content:
            value = content[name]
            given[name] = _NULLS.get(field.type, value) if value is None else value
    return record(**given)


def _end_of_last_line(file: BinaryIO, end: int) -> int:
    """Where the last whole line before `end` ends; the file is read from behind."""
    while end > 0:
        start = max(0, end - _BLOCK_BYTES)
        file.seek(start)
        found = file.read(end - start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0
