"""Texts from elsewhere inside of Markdown: on one line, and without anything that Markdown or HTML would act on."""

import re
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from sft.printable import fit_to_print, shortened

_MOST_CHARS = 4000
# What begins code, emphasis, links, pictures, tags, entities, formulas, columns of a table, and strikes out.
_ACTS = re.compile(r"([\\`*\[\]<>&$|~!])|(?<![^\W_])_|_(?![^\W_])")
# At the beginning of a line: a title, a list, a line below a title.
_BEGINS = re.compile(r"^(?=[#+=-])|^\d+(?=[.)](?:\s|$))")


class Markdown(str):
    """A text that is Markdown."""

    __slots__ = ()


def markdown_environment(package: str) -> Environment:
    """The environment for the Markdown templates in `package`: each value is escaped, an unknown name is an error."""
    return Environment(
        loader=PackageLoader(package, ""),
        autoescape=False,  # noqa: S701  (that would be for HTML: `escaped` is for Markdown)
        undefined=StrictUndefined,
        finalize=escaped,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def escaped(value: Any) -> Any:
    """A text from elsewhere as Markdown that shows it; Markdown and numbers stay as they are."""
    if isinstance(value, Markdown) or not isinstance(value, str):
        return value
    text = _ACTS.sub(lambda found: f"\\{found[0]}", _line(value))
    # Bare addresses would become links.
    text = re.sub(r"(?i)(https?|ftp):", r"\1\\:", text)
    return Markdown(_BEGINS.sub(lambda found: f"{found[0]}\\", text))


def code(text: str) -> Markdown:
    """A text from elsewhere as code inside of a table."""
    if not (line := _line(text)):
        return Markdown("")
    ticks = _ticks(line, 1)
    space = " " if "`" in line else ""
    bar = "\\|"  # tables are cut into columns before code is looked for
    return Markdown(f"{ticks}{space}{line.replace('|', bar)}{space}{ticks}")


def fenced(text: str, language: str) -> Markdown:
    """Lines as a block of code."""
    ticks = _ticks(text, 3)
    return Markdown(f"{ticks}{language}\n{text.rstrip()}\n{ticks}")


def _ticks(text: str, least: int) -> str:
    """More of them than stand together in the text."""
    return "`" * max(least, 1 + max((len(run) for run in re.findall("`+", text)), default=0))


def _line(text: str) -> str:
    return shortened(" ".join(fit_to_print(text).split()), _MOST_CHARS)
