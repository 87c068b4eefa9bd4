"""Reads CSV and TSV files row by row. All cells stay text: a reader that guesses types turns the answer 007 into 7.

The location of a row is the line on which it begins, because a cell may hold line ends.
"""

import csv
import io
from collections import Counter
from collections.abc import Iterator
from typing import Any

from sft.config_sources import CsvConfig
from sft.data.reading import blocks
from sft.data.reading.blocks import Piece, Unreadable
from sft.data.reading.locations import SourceFile
from sft.errors import UserError

_DELIMITERS = ",;\t|"
"""Delimiters in common use. A header of one column that contains one of them was most likely not split."""


def cut_csv(file: SourceFile, rules: CsvConfig) -> Iterator[Piece]:
    """Pieces of rows that are read already: a dict by the header's names, or an `Unreadable`.

    Raises:
        UserError: the header cannot be used, a row is too long, or a quote is left open, so that it is unknown where
            the next row begins.
    """
    csv.field_size_limit(blocks.MAX_RECORD_BYTES)  # the library has one limit for all readers
    with file.open() as (stream, share_read):
        # Bytes that are not UTF-8 come out as surrogates, so only their own row is lost.
        lines = _Lines(file, io.TextIOWrapper(stream, "utf-8-sig", errors="surrogateescape", newline=""))
        rows: list[tuple[int, Any]] = []
        num_bytes = 0
        for number, row, num_row_bytes in _read_rows(file, rules, lines):
            rows.append((number, row))
            num_bytes += num_row_bytes
            if num_bytes >= blocks.BLOCK_BYTES or len(rows) == blocks.BLOCK_RECORDS:
                yield Piece(tuple(rows), rows[0][0], len(rows), share_read())
                rows, num_bytes = [], 0
        if rows:
            yield Piece(tuple(rows), rows[0][0], len(rows), 1.0)


class _Lines:
    """The lines of a file. A row, of one line or of several, may not be longer than a record may be."""

    def __init__(self, file: SourceFile, lines: io.TextIOWrapper) -> None:
        self._file, self._lines = file, lines
        self.first = 1
        """The line on which the current row begins; set by the reader of rows."""
        self.num_characters = 0
        """Of the current row, so far."""

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        line = self._lines.readline(blocks.MAX_RECORD_BYTES + 1)
        self.num_characters += len(line)
        if self.num_characters > blocks.MAX_RECORD_BYTES:
            raise UserError(
                f"source {self._file.source}: {self._file.name}:{self.first}: the row that begins here has more than "
                f"{blocks.MAX_RECORD_BYTES:,} characters, which is the most that is read. If it should not: a quote "
                "may not be closed."
            )
        if not line:
            raise StopIteration
        return line


def _read_rows(file: SourceFile, rules: CsvConfig, lines: _Lines) -> Iterator[tuple[int, Any, int]]:
    """Each row's line number, its cells by name or an `Unreadable`, and its approximate size in bytes."""
    delimiter = rules.delimiter or ("\t" if file.ending == ".tsv" else ",")
    quoting = {"quotechar": rules.quote} if rules.quote else {"quoting": csv.QUOTE_NONE, "quotechar": None}
    reader = csv.reader(lines, strict=True, delimiter=delimiter, **quoting)
    header: list[str] | None = None
    while True:
        number = lines.first = reader.line_num + 1
        lines.num_characters = 0
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
            header = _check_header(file, number, cells, delimiter)
        else:
            yield number, _as_fields(header, cells), sum(map(len, cells)) + len(cells)


def _explain(error: csv.Error) -> str:
    text = str(error)
    if "end of data" in text or "field limit" in text:
        return (
            f"{text}: a quote that is opened here is not closed. Close it. If a quote is an ordinary character in this "
            'file, write into the source: csv: {quote: ""}'
        )
    return text


def _check_header(file: SourceFile, number: int, names: list[str], delimiter: str) -> list[str]:
    place = f"source {file.source}: {file.name}:{number}"
    if _is_broken("".join(names)):
        raise UserError(f"{place}: the header is not UTF-8. Save the file as UTF-8.")
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    if twice:
        shown = ", ".join(name or "(a column without a name)" for name in twice[:5])
        raise UserError(f"{place}: the header names a column twice: {shown}. Give each a name of its own.")
    other = next((mark for mark in _DELIMITERS if len(names) == 1 and mark in names[0]), None)
    if other:
        written = "\\t" if other == "\t" else other
        raise UserError(
            f"{place}: the header is one column: {names[0][:80]!r}. If another character than {delimiter!r} separates "
            f'the cells, write it into the source: csv: {{delimiter: "{written}"}}.'
        )
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
