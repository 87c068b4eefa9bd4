"""Reads CSV files row by row. All cells are text: left to guess, a reader makes 7 of the answer 007.

The place of a row is the line that it begins in, since a cell may hold line ends.
"""

import csv
import io
from collections.abc import Iterator
from typing import Any

from sft.data.reading import blocks
from sft.data.reading.blocks import Piece, Unreadable
from sft.data.reading.locations import SourceFile
from sft.errors import UserError


def cut_csv(file: SourceFile) -> Iterator[Piece]:
    """Pieces of rows that are read already: a dict of the header's names, or an `Unreadable`.

    Raises:
        UserError: the header cannot be used, or a quote is left open, so that the rows behind it cannot be told.
    """
    csv.field_size_limit(blocks.MAX_RECORD_BYTES)  # the library has one limit for all readers
    with file.open() as (stream, share_read):
        # Bytes that are no UTF-8 come out as surrogates, so that only their own row is lost.
        lines = io.TextIOWrapper(stream, "utf-8-sig", errors="surrogateescape", newline="")
        rows: list[tuple[int, Any]] = []
        num_bytes = 0
        for number, row, num_row_bytes in _read_rows(file, lines):
            rows.append((number, row))
            num_bytes += num_row_bytes
            if num_bytes >= blocks.BLOCK_BYTES or len(rows) == blocks.BLOCK_RECORDS:
                yield Piece(tuple(rows), rows[0][0], len(rows), share_read())
                rows, num_bytes = [], 0
        if rows:
            yield Piece(tuple(rows), rows[0][0], len(rows), 1.0)


def _read_rows(file: SourceFile, lines: Iterator[str]) -> Iterator[tuple[int, Any, int]]:
    """Each row's line, its cells by name or an `Unreadable`, and about how many bytes it has."""
    reader = csv.reader(lines, strict=True)
    header: list[str] | None = None
    while True:
        number = reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            if header is None or "expected after" not in str(error):
                raise UserError(f"source {file.source}: {file.name}:{number}: broken CSV: {_explain(error)}") from None
            yield number, Unreadable(f"broken CSV: {error}"), 0
            continue
        if cells is None:
            return
        if not cells or (len(cells) == 1 and not cells[0].strip()):  # a blank line
            continue
        if header is None:
            header = _check_header(file, number, cells)
        else:
            yield number, _as_fields(header, cells), sum(map(len, cells))


def _explain(error: csv.Error) -> str:
    text = str(error)
    if "end of data" in text or "field limit" in text:
        return f"{text}: a quote that is opened here is not closed"
    return text


def _check_header(file: SourceFile, number: int, names: list[str]) -> list[str]:
    place = f"source {file.source}: {file.name}:{number}"
    if _is_broken("".join(names)):
        raise UserError(f"{place}: the header is not UTF-8. Save the file as UTF-8.")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(f"{place}: the header names a column twice: {', '.join(twice)}. Give each a name of its own.")
    return names


def _as_fields(header: list[str], cells: list[str]) -> Any:
    if len(cells) != len(header):
        return Unreadable(f"the row has {len(cells)} cells; the header has {len(header)}")
    broken = [name for name, cell in zip(header, cells, strict=True) if _is_broken(cell)]
    if broken:
        return Unreadable(f"invalid UTF-8 in column {broken[0]}")
    return dict(zip(header, cells, strict=True))


def _is_broken(text: str) -> bool:
    if text.isascii():
        return False
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False
