"""Cuts files of JSON lines and of JSON into pieces, and decodes lines.

Lines are cut without being looked at, so the process that reads is as fast as the disk. A file that is one list
has to be read and parsed whole.
"""

import codecs
import json
from collections.abc import Callable, Iterator
from io import BufferedReader
from typing import Any

from sft.data.reading import blocks
from sft.data.reading.blocks import Piece, Unreadable
from sft.data.reading.locations import SourceFile
from sft.errors import UserError


def cut_json_lines(file: SourceFile) -> Iterator[Piece]:
    """Pieces of whole lines. A line that is too long is a piece of its own, without its text."""
    with file.open() as (stream, share_read):
        yield from _cut_lines(stream, share_read)


def cut_json(file: SourceFile) -> Iterator[Piece]:
    """Pieces of a file that holds a list of records, one record, or one record a line.

    Raises:
        UserError: it is a list, and broken.
    """
    if _holds_lines(file):
        yield from cut_json_lines(file)
        return
    with file.open() as (stream, _):
        text = stream.read().removeprefix(codecs.BOM_UTF8)
    if text.lstrip().startswith(b"["):
        yield from _cut_list(file, text)
    else:
        yield Piece(text, 1, 1, 1.0, is_line=False)


def decode_lines(text: bytes) -> Iterator[tuple[int, Any]]:
    """The offset of each line that is not blank, and its JSON value or an `Unreadable`."""
    for offset, line in enumerate(text.split(b"\n")):
        if line and not line.isspace():
            yield offset, decode_value(line)


def decode_value(text: bytes, is_line: bool = True) -> Any:
    """The JSON value, or an `Unreadable`."""
    try:
        return json.loads(text.decode().removeprefix("\ufeff"))
    except UnicodeDecodeError as error:
        return Unreadable(f"invalid UTF-8 at byte {error.start} of the {'line' if is_line else 'file'}")
    except json.JSONDecodeError as error:
        place = f"column {error.colno}" if is_line else f"line {error.lineno} column {error.colno}"
        return Unreadable(f"broken JSON: {error.msg} at {place}")
    except (ValueError, RecursionError) as error:  # a number of too many digits, brackets too deep
        return Unreadable(f"broken JSON: {error}")


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
    """Skip what is left of the line that `text` ends in, and say how many bytes that were."""
    num_bytes = 0
    while not text.endswith(b"\n") and (text := stream.readline(blocks.BLOCK_BYTES)):
        num_bytes += len(text) - text.endswith(b"\n")
    return num_bytes


def _holds_lines(file: SourceFile) -> bool:
    """Whether the first line that is not blank is a JSON value of its own, and no list; if it is broken, the second."""
    lines: list[bytes] = []
    with file.open() as (stream, _):
        while len(lines) < 2 and (line := stream.readline(blocks.MAX_RECORD_BYTES)):
            lines += [] if line.isspace() else [line.strip()]
    first, second = (decode_value(line) for line in (*lines, b"", b"")[:2])
    if isinstance(first, Unreadable):
        # Of an object that is written over several lines, no line but perhaps the last is an object.
        return lines[:1] not in ([], [b"{"], [b"["]) and isinstance(second, dict)
    return not isinstance(first, list)


def _cut_list(file: SourceFile, text: bytes) -> Iterator[Piece]:
    try:
        rows = json.loads(text.decode())
    except UnicodeDecodeError as error:
        raise UserError(f"source {file.source}: {file.name}: invalid UTF-8 at byte {error.start}") from None
    except json.JSONDecodeError as error:
        place = f"{file.name}:{error.lineno}"
        reason = f"broken JSON: {error.msg} at column {error.colno}"
        raise UserError(f"source {file.source}: {place}: {reason}") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"source {file.source}: {file.name}: broken JSON: {error}") from None
    length = min(max(blocks.BLOCK_BYTES * len(rows) // len(text), 1), blocks.BLOCK_RECORDS)
    for start in range(0, len(rows), length):
        content = tuple(enumerate(rows[start : start + length], start=start + 1))
        yield Piece(content, start + 1, len(content), (start + len(content)) / len(rows), is_line=False)
