"""Files of JSON lines that one process appends to while others read: the metrics, the ledger and the events of a run.

A line exists when its newline is there. A killed process or a full disk may leave text after the last newline: readers
skip it, and the next append cuts it off. Only in files that people write, too, is whole JSON there a line: editors may
end without a newline.
"""

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Self, TypeVar

from sft.nesting import is_deep

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Record = TypeVar("Record", bound="DataclassInstance")

_BLOCK_BYTES = 1 << 16
_READABLE = json.JSONEncoder(ensure_ascii=False, allow_nan=False)
"""Made once: that takes longer than to encode a line."""
_NULLS: Mapping[Any, Any] = {float: math.nan, str: ""}


def append_line(path: Path, content: Mapping[str, Any], by_people: bool = False) -> None:
    """Add a line. After this returns, a kill of the process does not lose the line.

    Args:
        path: the file, which is made if it is not there.
        content: of the line.
        by_people: whether people write the file, too.

    Raises:
        OSError: it could not be written whole; what was written does not count as a line.
    """
    line = json.dumps(content).encode() + b"\n"
    with path.open("a+b") as file:
        if end := file.tell():
            file.seek(end - 1)
            if file.read(1) != b"\n":
                start = _end_of_last_line(file, end)
                file.seek(start)
                if by_people and is_json(file.read()):
                    line = b"\n" + line
                else:
                    file.truncate(start)
        file.write(line)


def is_json(text: bytes) -> bool:
    """Whether it is whole: what is left of a JSON object of which the end is missing is none."""
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def read_object(line: bytes) -> dict[str, Any] | None:
    """The JSON object of a line; None for one that is none, or is nested too deep (`sft.nesting`)."""
    try:
        content = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) and not is_deep(content, line) else None


def json_line(content: Mapping[str, Any]) -> str:
    """The line of an object in a file that is written whole: text stays readable, in any script.

    Half of a pair of surrogates, which no file can hold, becomes its escape. A number that is none (NaN, infinite)
    becomes null: strict readers of JSON refuse it.
    """
    try:
        line = _READABLE.encode(content)
    except ValueError:
        line = _READABLE.encode(without_nan(content))
    return line.encode("utf-8", "backslashreplace").decode() + "\n"


def without_nan(content: Any) -> Any:
    """The same with null in the place of numbers that JSON does not have."""
    if isinstance(content, Mapping):
        return {key: without_nan(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [without_nan(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


def whole_lines(path: Path) -> Iterator[bytes]:
    """The complete lines, one at a time: a long run of many ranks has hundreds of megabytes."""
    with path.open("rb") as file:
        yield from (line for line in file if line.endswith(b"\n"))


class LineTail:
    """Follows a growing file: each call of `read_new` returns the lines that were added."""

    def __init__(self, path: Path, offset: int = 0) -> None:
        """The file may not be there yet. `offset` is where to begin, such as the offset of another tail."""
        self._path = path
        self.offset = offset
        """In bytes, after the last line that was read."""

    @classmethod
    def near_end(cls, path: Path, num_bytes: int) -> Self:
        """Begin with the complete lines in the last `num_bytes` of the file."""
        offset = max(0, path.stat().st_size - num_bytes) if path.is_file() else 0
        if offset:
            with path.open("rb") as file:
                file.seek(offset - 1)
                offset += len(file.readline()) - 1  # after the line that is cut there
        return cls(path, offset)

    def read_new(self, most_bytes: float = math.inf) -> list[bytes]:
        """Complete lines that were added since the last call; stops after `most_bytes`."""
        lines: list[bytes] = []
        last = self.offset + most_bytes
        with suppress(FileNotFoundError), self._path.open("rb") as file:
            file.seek(self.offset)
            while self.offset < last and (line := file.readline()).endswith(b"\n"):
                lines.append(line)
                self.offset += len(line)
        return lines

    def read_rest(self) -> bytes:
        """What stands behind the last line that was read."""
        with suppress(FileNotFoundError), self._path.open("rb") as file:
            file.seek(self.offset)
            return file.read()
        return b""


def from_json(record: type[Record], content: Mapping[str, Any]) -> Record:
    """The record of a JSON object of any version: unknown keys are skipped.

    Null becomes NaN for a number, and an empty text for a text.

    Raises:
        TypeError: this is not an object, or a field is missing.
    """
    given = {}
    for name, field in record.__dataclass_fields__.items():
        if name in content:
            value = content[name]
            given[name] = _NULLS.get(field.type, value) if value is None else value
    return record(**given)


def _end_of_last_line(file: BinaryIO, end: int) -> int:
    """Where the last whole line before `end` ends; the file is read backwards."""
    while end > 0:
        start = max(0, end - _BLOCK_BYTES)
        file.seek(start)
        found = file.read(end - start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0
