"""Fits a table into a terminal that is too narrow for it: rich would cut words off, and drop whole columns.

stage  packs  steps            stage  broad
broad      8      4      ──▶   packs  8
                               steps  4
"""

import copy

from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.measure import Measurement
from rich.table import Column, Table
from rich.text import Text

_ANY_WIDTH = 10_000
_LEAST_FOLDED = 16
"""The least width of a column whose words may be broken."""


def fitted(table: Table, console: Console, options: ConsoleOptions) -> RenderableType:
    """The table as it is, else with columns as narrow and as close as their words allow, else each row as lines."""
    wide, room = options.update(width=_ANY_WIDTH), options.max_width
    needs = [_needs(column, console, wide) for column in table.columns]
    least, most = sum(need.minimum for need in needs), sum(need.maximum for need in needs)
    for padding in (table.padding, (0, 0, 0, 0)):
        narrow = copy.copy(table)
        narrow.padding = padding
        spare = room - (Measurement.get(console, wide, narrow).maximum - most) - least
        if spare >= 0:
            narrow.columns = [copy.copy(column) for column in table.columns]
            for column, need in zip(narrow.columns, needs, strict=True):
                more = need.maximum - need.minimum
                column.width = need.minimum + min(more, more * spare // max(1, most - least))
            return narrow
    return _as_lines(table)


def _needs(column: Column, console: Console, options: ConsoleOptions) -> Measurement:
    """Its width with each word on a line, and with each cell on one line."""
    cells = [Measurement.get(console, options, cell) for cell in (column.header, *column.cells)]
    least, most = max(cell.minimum for cell in cells), max(cell.maximum for cell in cells)
    return Measurement(min(least, _LEAST_FOLDED) if column.overflow == "fold" else least, most)


def _as_lines(table: Table) -> RenderableType:
    parts: list[RenderableType] = [Text(str(table.title), style=table.title_style or "")] if table.title else []
    for row in zip(*(column.cells for column in table.columns), strict=True):
        lines = Table.grid(Column(no_wrap=True), Column(overflow="fold"), padding=(0, 2, 0, 0))
        for column, cell in zip(table.columns, row, strict=True):
            if cell or column is table.columns[0]:
                lines.add_row(column.header, cell)
        parts += [lines, ""]
    return Group(*parts, *([str(table.caption)] if table.caption else []))
