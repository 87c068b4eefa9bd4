"""Files of JSON lines that one process appends to while others read: the metrics, the ledger and the events of a run.

A line exists when its newline is there. What a killed process or a full disk has left behind the last newline is passed
over by readers, and cut off by whoever appends next.
"""

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

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
    """The lines of a growing file: those at its end at first, then those that were added."""

    def __init__(self, path: Path, first_bytes: int | None = None) -> None:
        """Of a file that is there already, `first_bytes` are read from behind; None: all of it.

        The file may also come later.
        """
        self._path = path
        self._offset = 0
        if first_bytes is not None and path.is_file() and (before := path.stat().st_size - first_bytes - 1) > 0:
            with path.open("rb") as file:
                file.seek(before)
                self._offset = before + len(file.readline())  # behind the line that is cut there

    def read_new(self) -> list[bytes]:
        """Whole lines that were added since."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                lines = [line for line in file if line.endswith(b"\n")]
        except FileNotFoundError:
            return []
        self._offset += sum(map(len, lines))
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
