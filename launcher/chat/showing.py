"""Shows replies as they come: beside each other where the terminal is wide enough, else one after the other."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from rich.console import Console
from rich.control import Control
from rich.segment import ControlType, Segment, Segments
from rich.style import Style
from rich.text import Text

from launcher.chat.columns import LEAST_WIDTH, Column, joined, width_of_columns
from sft.chat.reply import Piece, Reply

_DIM = "dim"
_ERASED = Control(ControlType.CARRIAGE_RETURN, (ControlType.ERASE_IN_LINE, 2))


class Named(NamedTuple):
    """A reply, and whose it is."""

    name: str
    reply: Reply


Stopped = Callable[[], bool]
"""Whether the user wants no more of these replies."""


def show_replies(replies: Sequence[Named], console: Console, stopped: Stopped, beside: bool = True) -> None:
    """Show replies to their ends, with a note where one did not end by itself. Afterwards all are ended.

    Args:
        replies: of the models to one question.
        console: a terminal.
        stopped: asked after each piece.
        beside: whether they may stand beside each other.
    """
    try:
        fits = width_of_columns(console.width, len(replies)) >= LEAST_WIDTH and not console.is_dumb_terminal
        if len(replies) > 1 and fits and beside:
            _show_beside(replies, console, stopped)
        else:
            for named in replies:
                if stopped():
                    break
                _show_alone(named, console, stopped, is_named=len(replies) > 1)
    finally:
        for named in replies:
            named.reply.end()


def write_replies(replies: Sequence[Named], console: Console, complain: Callable[[str], None]) -> None:
    """Write replies for a program: nothing but their texts, each on lines of its own; notes go to `complain`."""
    try:
        for name, reply in replies:
            prefix = f"{name}: " if len(replies) > 1 else ""
            _write(console, prefix)
            for piece in reply.pieces():
                _write(console, piece.text)
            _write(console, "\n")
            if reply.note:
                complain(f"{name}: {reply.note}")
    finally:
        for named in replies:
            named.reply.end()


def _show_alone(named: Named, console: Console, stopped: Stopped, is_named: bool) -> None:
    name, reply = named
    if is_named:
        console.print(Text(name, "bold"), soft_wrap=True)
    is_blank = True
    for piece in _until(reply, stopped):
        is_blank = is_blank and not piece.text
        _write(console, piece.text, _DIM if piece.is_thought else "")
    reply.end()
    note = f"({reply.note})" if reply.note else ""
    if note:
        _write(console, note if is_blank else f"\n{note}", _DIM)
    _write(console, "\n")


@dataclass
class _Side:
    """A column with the reply that fills it."""

    reply: Reply
    pieces: Iterator[Piece]
    column: Column = field(default_factory=Column)
    num_pieces: int = 0
    is_blank: bool = True

    def go_on(self) -> None:
        """Put the next piece into the column, or the end."""
        self.num_pieces += 1
        piece = next(self.pieces, None)
        if piece is None:
            self.reply.end()
            if note := self.reply.note:
                self.column.add(f"({note})" if self.is_blank else f"\n({note})", _DIM)
            self.column.end()
        elif piece.text:
            self.is_blank = False
            self.column.add(piece.text, _DIM if piece.is_thought else "")


def _show_beside(replies: Sequence[Named], console: Console, stopped: Stopped) -> None:
    sides = [_Side(named.reply, _until(named.reply, stopped)) for named in replies]
    titles = [Text(named.name, "bold") for named in replies]
    for title in titles:
        title.truncate(width_of_columns(console.width, len(replies)), overflow="ellipsis")
    console.print(joined(titles, width_of_columns(console.width, len(replies))), soft_wrap=True)
    live = ""
    while True:
        # Also where the terminal was made narrower meanwhile.
        width = max(width_of_columns(console.width, len(replies)), LEAST_WIDTH // 3)
        columns = [side.column for side in sides]
        while all(column.has_row(width) for column in columns) and not all(
            column.is_empty and not column.is_open for column in columns
        ):
            console.control(_ERASED)
            console.print(joined([column.take(width) for column in columns], width), soft_wrap=True)
            live = ""
        going_on = [side for side in sides if side.column.is_open]
        if not going_on:
            break
        row = joined([column.front(width) for column in columns], width)
        if row.plain != live:
            console.control(_ERASED)
            console.print(row, soft_wrap=True, end="")
            live = row.plain
        # Whose row is not complete yet goes on, so that they stay beside each other.
        behind = [side for side in going_on if not side.column.has_row(width)] or going_on
        min(behind, key=lambda side: side.num_pieces).go_on()


def _until(reply: Reply, stopped: Stopped) -> Iterator[Piece]:
    for piece in reply.pieces():
        yield piece
        if stopped():
            return


def _write(console: Console, text: str, style: str = "") -> None:
    """Write text as it is: the console lays nothing out, so tabs and long lines stay."""
    if text:
        console.print(Segments([Segment(text, Style.parse(style))]), soft_wrap=True)
