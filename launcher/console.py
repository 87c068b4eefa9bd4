"""The terminal: everything that is printed goes through here, and is made fit to print.

Names from data and configs are plain text, never markup. Only `Text` and `styled` make styled text.
"""

import codecs
import os
import re
import sys
from collections.abc import Iterable, Iterator
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from launcher.narrow_tables import fitted
from sft.printable import fit_message, fit_to_print
from sft.url_secrets import hide_secrets

_WIDTH = 110
"""Off a terminal, tables keep a width that fits a log."""

_COLOUR = re.compile(r"(\x1b\[[0-9;]*m)")
_ASCII = str.maketrans({
    "–": "-", "−": "-", "—": "-", "…": "...", "×": "x", "≤": "<=", "≥": ">=", "→": "->", "·": "-", "⟨": "<", "⟩": ">",
    "⟦": "[[", "⟧": "]]", "↵": "$", "─": "-", "’": "'", "•": "*",
})  # fmt: skip


class FitConsole(Console):
    """Rich's console for text that others wrote: no markup, emoji codes or highlighting, and all of it fit to print."""

    def __init__(self, **options: Any) -> None:
        """`options` are those of rich."""
        super().__init__(markup=False, emoji=False, highlight=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """A text before its layout, so that tables are as wide as what is shown."""
        return super().render_str(text if options.get("markup") else fit_to_print(text), **options)

    def render(self, renderable: Any, options: Any = None) -> Iterable[Segment]:
        """The segments of the layout. Makes text fit to print that did not pass `render_str`, and narrows wide
        tables; their lines end in no blanks."""
        options = options or self.options
        if isinstance(renderable, Table) and renderable.show_header:
            renderable = fitted(renderable, self, options)
        segments = super().render(renderable, options)
        for text, style, control in _without_padding(segments) if isinstance(renderable, Table) else segments:
            yield Segment(text if control else fit_to_print(text), style, control)


def _without_padding(segments: Iterable[Segment]) -> Iterator[Segment]:
    """Lines without the blanks that fill up their last column."""
    for line in Segment.split_lines(segments):
        while line and not line[-1].text.strip(" "):
            line.pop()
        if line:
            text, style, control = line.pop()
            yield from (*line, Segment(text.rstrip(" "), style, control))
        yield Segment.line()


def build_console() -> FitConsole:
    """For stdout."""
    return FitConsole() if sys.stdout.isatty() else FitConsole(width=_WIDTH)


def styled(markup: str, *values: object) -> Text:
    """A text with styles: `styled("[red]{}[/]: {} wrong", name, 3)`. The values are never read as markup."""
    return Text.from_markup(markup.format(*(escape(fit_to_print(str(value))) for value in values)), emoji=False)


def say_error(message: object) -> None:
    """A message on stderr."""
    sys.stderr.write(f"{fit_message(str(message))}\n")


def end_at_once(message: str) -> None:
    """Exit because another job works in the run folder. What this process has started ends with it."""
    say_error(message)
    os._exit(1)


def fit_log(text: str) -> str:
    """The log of another program: its colours stay, and a line that it overwrites becomes a line of its own."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return "".join(part if _COLOUR.fullmatch(part) else fit_to_print(part) for part in _COLOUR.split(text))


def fit_for_json(value: Any) -> Any:
    """Plain values for programs, without secrets; JSON itself escapes what has no glyph."""
    return hide_secrets(value)


def let_streams_take_any_text() -> None:
    """Print to an ASCII terminal what it can show, so that no text ends a command with an error."""
    codecs.register_error("in_ascii", _in_ascii)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="in_ascii")


def _in_ascii(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    given = error.object[error.start : error.end]
    plain = given.translate(_ASCII).encode(error.encoding, "backslashreplace").decode(error.encoding)
    return plain, error.end
