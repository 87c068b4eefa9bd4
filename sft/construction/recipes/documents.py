"""Reads documents, and cuts them into passages: whole paragraphs, as many as fit a bound.

A paragraph ends at a blank line, but not within a fence of code. A heading goes with what follows it. What is longer
than the bound by itself is cut at its lines, then at its spaces, then anywhere.
"""

import glob
import os.path
import re
from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from sft.absolute_paths import local_path, near_it
from sft.construction.recipes.material import Passage
from sft.errors import UserError

_ID_CHARS = 16
_MOST_SHOWN = 10
_FENCE = re.compile(r"[ \t]{0,3}(?:```[^`]*|~~~.*)")
_HEADING = re.compile(r"[ \t]{0,3}#{1,6}[ \t]")


def _listed(given: Any) -> Any:
    return (given,) if isinstance(given, str) else given


Patterns = Annotated[tuple[Annotated[str, Field(min_length=1)], ...], BeforeValidator(_listed)]
"""A path or a pattern, or several, in a config."""
MinChars = Annotated[int, Field(ge=1)]
MaxChars = Annotated[int, Field(ge=100)]
MIN_CHARS, MAX_CHARS = 200, 2000
"""Of a passage, where a config says nothing."""


def read_passages(patterns: Sequence[str], least_chars: int, most_chars: int) -> tuple[Passage, ...]:
    """The passages of all documents, each text once, in the order of the documents' paths.

    Args:
        patterns: paths, or patterns of such with `*`, `?`, `[…]` and `**`.
        least_chars: shorter passages are left out.
        most_chars: of a passage.

    Raises:
        UserError: names each pattern that matches nothing and each document that is no text, or says that there is no
            passage.
    """
    if least_chars > most_chars:
        raise UserError(f"min_chars: {least_chars} is more than max_chars, {most_chars}. Give a smaller one.")
    problems, found = list[str](), dict[str, Passage]()
    for path in _documents(patterns, problems):
        try:
            text = path.read_bytes().decode("utf-8-sig")
        except OSError as error:
            problems.append(f"{path} cannot be read: {error.strerror}")
            continue
        except UnicodeDecodeError:
            problems.append(f"{path} is no text in UTF-8. Convert it to text or Markdown")
            continue
        if "\0" in text:
            problems.append(f"{path} holds bytes that no text has. Convert it to text or Markdown")
            continue
        for passage in passages_of(text, least_chars, most_chars):
            hashed = sha256(passage.encode()).hexdigest()[:_ID_CHARS]
            found.setdefault(hashed, Passage(f"{_short(path)}#{hashed}", passage))
    if not problems and not found:
        problems.append(f"no document has a passage of {least_chars} characters. Give others, or a smaller bound")
    if problems:
        more = [f"and {len(problems) - _MOST_SHOWN} more"] if len(problems) > _MOST_SHOWN else []
        raise UserError(f"documents: {'; '.join([*problems[:_MOST_SHOWN], *more])}.")
    return tuple(found.values())


def passages_of(text: str, least_chars: int, most_chars: int) -> Iterator[str]:
    """The passages of a document, in order."""
    passage = ""
    for paragraph in _paragraphs(text):
        for part in _parts(paragraph, most_chars):
            longer = f"{passage}\n\n{part}" if passage else part
            if len(longer) > most_chars:
                if len(passage) >= least_chars:
                    yield passage
                longer = part
            passage = longer
    if len(passage) >= least_chars:
        yield passage


def _documents(patterns: Sequence[str], problems: list[str]) -> list[Path]:
    found = set[Path]()
    for pattern in patterns:
        try:
            path = local_path(pattern)
        except UserError as error:
            problems.append(str(error).rstrip("."))
            continue
        # A file may have such signs in its name.
        matches = [path] if os.path.isfile(path) else [Path(m) for m in glob.glob(str(path), recursive=True)]
        files = [match for match in matches if os.path.isfile(match)]
        if not files:
            way_out = f". It is a folder: give {pattern.rstrip('/')}/**/*.md" if path.is_dir() else near_it(path)
            problems.append(f"{pattern} matches no file{way_out}")
        found.update(files)
    return sorted(found)


def _short(path: Path) -> Path:
    """From the working folder, so that the name is the same on another machine."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _paragraphs(text: str) -> Iterator[str]:
    lines, in_fence = list[str](), False
    for line in text.splitlines():
        if _FENCE.fullmatch(line):
            in_fence = not in_fence
        # A heading alone is not ended by a blank line.
        is_heading_alone = bool(lines) and all(_HEADING.match(one) or not one.strip() for one in lines)
        if line.strip() or in_fence:
            if _HEADING.match(line) and not in_fence and lines and not is_heading_alone:
                yield "\n".join(lines).strip()
                lines = []
            lines.append(line.rstrip())
        elif lines and not is_heading_alone:
            yield "\n".join(lines).strip()
            lines = []
        elif lines:
            lines.append("")
    if lines and (last := "\n".join(lines).strip()):
        yield last


def _parts(paragraph: str, most_chars: int) -> Iterator[str]:
    start = 0
    while len(paragraph) - start > most_chars:
        end = start + most_chars
        # Behind the first character, or nothing would be cut off.
        at = next((at for sign in "\n " if (at := paragraph.rfind(sign, start + 1, end)) > start), end)
        if part := paragraph[start:at].strip():
            yield part
        start = at
    if part := paragraph[start:].strip():
        yield part
