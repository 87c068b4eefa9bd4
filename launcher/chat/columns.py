"""Rows of texts that stand beside each other and grow at the same time.

A row is printed for good when all of its columns are complete. Only the row at the bottom is drawn again, so nothing
that has scrolled away is touched, whatever the length of a text or the size of the terminal.
"""

from collections.abc import Sequence

from rich.cells import cell_len
from rich.text import Text

from sft.printable import fit_to_print

BETWEEN = " │ "
LEAST_WIDTH = 30
"""Of a column, in cells."""
_TAB = "    "


def width_of_columns(width: int, num_columns: int) -> int:
    """The cells of each column in a terminal of this width; less than `LEAST_WIDTH`: they do not fit."""
    # The last cell stays free: some terminals begin a new line behind it.
    return (width - 1 - len(BETWEEN) * (num_columns - 1)) // num_columns


class Column:
    """A text that grows, cut into rows between words."""

    def __init__(self) -> None:
        self._rest = Text()
        self._is_over = False
        self.num_cut = 0
        """How many rows were taken."""

    def add(self, text: str, style: str = "") -> None:
        """Put text at the end."""
        self._rest.append(fit_to_print(text).replace("\t", _TAB), style)

    def end(self) -> None:
        """Nothing more is added: what is there is the last row."""
        self._is_over = True

    @property
    def is_open(self) -> bool:
        """Whether more may be added."""
        return not self._is_over

    @property
    def is_empty(self) -> bool:
        """Whether nothing is left to be taken."""
        return not self._rest.plain

    def has_row(self, width: int) -> bool:
        """Whether its next row is complete."""
        return self._is_over or _end_of_row(self._rest.plain, width) is not None

    def front(self, width: int) -> Text:
        """Its next row as far as it goes."""
        end = _end_of_row(self._rest.plain, width)
        return self._rest[: end[0]] if end else self._rest

    def take(self, width: int) -> Text:
        """Its next row, which is complete; blank behind the end."""
        row, end = self.front(width), _end_of_row(self._rest.plain, width)
        self._rest = self._rest[end[1] :] if end else Text()
        self.num_cut += 1
        return row


def joined(rows: Sequence[Text], width: int) -> Text:
    """The row of all columns."""
    line = Text(end="")
    for i, row in enumerate(rows):
        if i:
            line.append(BETWEEN, "dim")
        padding = width - cell_len(row.plain) if i + 1 < len(rows) else 0
        line.append_text(row)
        line.append(" " * max(0, padding))
    line.rstrip()
    return line


def _end_of_row(text: str, width: int) -> tuple[int, int] | None:
    """Where the first row of a text ends, and where the next begins; None while it may go on."""
    line, newline, _ = text.partition("\n")
    if cell_len(line) <= width:
        return (len(line), len(line) + 1) if newline else None
    fitting = len(_fitting(line, width))
    space = line.rfind(" ", 0, fitting + 1)
    if space > 0 and line[:space].strip():
        return space, space + 1
    return fitting, fitting


def _fitting(line: str, width: int) -> str:
    """The longest beginning that is not wider; at least one character."""
    cells = 0
    for i, char in enumerate(line):
        cells += cell_len(char)
        if cells > width:
            return line[: max(i, 1)]
    return line
