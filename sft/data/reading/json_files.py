"""Cuts JSON files into pieces: one record a line, a list of records, or records one after another.

The content decides which of these a file is, not its ending. Lines are cut without being parsed, so the process that
reads is as fast as the disk. In the other two forms each record is parsed to find its end.
"""

import codecs
from collections.abc import Callable, Iterator
from io import BufferedReader
from typing import Any, Literal

from sft.data.reading import blocks
from sft.data.reading.blocks import Piece, Unreadable
from sft.data.reading.json_values import BrokenJsonError, ValueReader, decode_value
from sft.data.reading.locations import SourceFile
from sft.errors import UserError

_SHORT_BYTES = 1 << 16
"""A longer first line that begins a list is not parsed to see whether it also ends it."""


def cut_json(file: SourceFile) -> Iterator[Piece]:
    """Pieces of a file that holds one record a line, a list of records, or records one after another, across lines.

    A line that is too long is a piece of its own, without its text.

    Raises:
        UserError: a list, or a file of several records across lines, is broken or holds a record that is too long.
    """
    form = _find_form(file)
    with file.open() as (stream, share_read):
        if form == "lines":
            yield from _cut_lines(stream, share_read)
        else:
            yield from _cut_values(file, stream, form == "list", share_read)


def decode_lines(text: bytes) -> Iterator[tuple[int, Any]]:
    """The offset of each line that is not blank, and its JSON value or an `Unreadable`."""
    for offset, line in enumerate(text.split(b"\n")):
        if line and not line.isspace():
            yield offset, decode_value(line)


def _cut_lines(stream: BufferedReader, share_read: Callable[[], float]) -> Iterator[Piece]:
    first = 1
    while text := stream.read(blocks.BLOCK_BYTES):
        last = text.rfind(b"\n") + 1
        if last < len(text):
            text += stream.readline(blocks.MAX_RECORD_BYTES + 1)
        num_bytes = len(text) - last - text.endswith(b"\n")
        # Lines that end inside the first BLOCK_BYTES are shorter.
        if too_long := num_bytes > blocks.MAX_RECORD_BYTES:
            num_bytes += _skip_line(stream, text)
            text = text[:last]
        if text:
            num_lines = text.count(b"\n") + (not text.endswith(b"\n"))
            yield Piece(text, first, num_lines, share_read())
            first += num_lines
        if too_long:
            reason = f"the line has {num_bytes:,} bytes; at most {blocks.MAX_RECORD_BYTES:,} are read"
            yield Piece(((first, Unreadable(reason)),), first, 1, share_read())
            first += 1


def _skip_line(stream: BufferedReader, text: bytes) -> int:
    """Skip the rest of the line that `text` ends in; returns how many bytes that were."""
    num_bytes = 0
    while not text.endswith(b"\n") and (text := stream.readline(blocks.BLOCK_BYTES)):
        num_bytes += len(text) - text.endswith(b"\n")
    return num_bytes


def _find_form(file: SourceFile) -> Literal["lines", "list", "values"]:
    lines: list[bytes] = []
    with file.open() as (stream, _):
        while len(lines) < 2 and (line := stream.readline(blocks.MAX_RECORD_BYTES)):
            lines += [] if line.isspace() else [line.removeprefix(codecs.BOM_UTF8).strip()]
    first, second = (*lines, b"", b"")[:2]
    if first.startswith(b"["):
        # One line that is a list, with nothing behind it, is the list of all records.
        is_line = len(first) < _SHORT_BYTES and second and isinstance(decode_value(first), list)
        return "lines" if is_line else "list"
    is_whole = len(first) < blocks.MAX_RECORD_BYTES - _SHORT_BYTES  # or so nearly full that it does not matter
    if not first.startswith(b"{") or not is_whole or not isinstance(decode_value(first), Unreadable):
        return "lines"
    if _begins_with_value(file):
        return "values"
    # Where an object spans several lines, no line except perhaps the last is an object by itself.
    is_line = file.ending != ".json" or (first != b"{" and isinstance(decode_value(second), dict))
    return "lines" if is_line else "values"


def _begins_with_value(file: SourceFile) -> bool:
    with file.open() as (stream, _):
        try:
            reader = ValueReader(stream)
            reader.next_character()
            reader.next_value()
            return reader.next_character() in ("", "{")
        except BrokenJsonError:
            return False


def _cut_values(
    file: SourceFile, stream: BufferedReader, is_list: bool, share_read: Callable[[], float]
) -> Iterator[Piece]:
    """Pieces of records that are read already."""
    rows: list[tuple[int, Any]] = []
    first, num_characters = 1, 0
    try:
        reader = ValueReader(stream)
        for value, length in _read_list(reader) if is_list else _read_values(reader):
            rows.append((first + len(rows), value))
            num_characters += length
            if num_characters >= blocks.BLOCK_BYTES or len(rows) == blocks.BLOCK_RECORDS:
                yield Piece(tuple(rows), first, len(rows), share_read(), is_line=False)
                first, rows, num_characters = first + len(rows), [], 0
    except BrokenJsonError as error:
        if is_list or first + len(rows) > 1:
            column = "" if error.column is None else f" at column {error.column}"
            raise UserError(f"source {file.source}: {file.name}:{error.line}: {error}{column}") from None
        # The file is one record, such as a task with its instances: this record is bad, other files may be good.
        place = "" if error.column is None else f" at line {error.line} column {error.column}"
        rows.append((1, Unreadable(f"{error}{place}")))
    if rows:
        yield Piece(tuple(rows), first, len(rows), 1.0, is_line=False)


def _read_list(reader: ValueReader) -> Iterator[tuple[Any, int]]:
    assert reader.next_character() == "["
    reader.skip()
    if reader.next_character() != "]":
        yield reader.next_value()
        while reader.next_character() == ",":
            reader.skip()
            reader.next_character()
            yield reader.next_value()
        if reader.next_character() != "]":
            raise reader.broken("Expecting ',' delimiter")
    reader.skip()
    if reader.next_character():
        raise reader.broken("Extra data behind the list")


def _read_values(reader: ValueReader) -> Iterator[tuple[Any, int]]:
    while reader.next_character():
        yield reader.next_value()
