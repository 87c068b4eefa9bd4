"""The lines of the fields in a config's file, for messages."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from sft.config_names import current_keys
from sft.config_yaml import Document, Place

Lines = Mapping[str, int | None]
"""Path of a field → its line in the file; None if it does not come from the file."""

NO_LINES: Lines = {}


def find_lines(
    document: Document, content: Mapping[str, Any], given: Mapping[str, str], kind: type[BaseModel]
) -> Lines:
    """The lines of the fields; items of lists are listed by number and by name.

    Args:
        document: as it was read.
        content: with overrides put in.
        given: the overrides by path; their values have no line.
        kind: what the config is.
    """
    lines: dict[str, int | None] = {}
    for place, line in document.lines.items():
        place = tuple(current_keys(place, kind))
        paths = [".".join(map(str, keys)) for keys in (place, _named(place, content))]
        is_given = any(f"{paths[0]}.".startswith(f"{path}.") for path in given)
        lines |= dict.fromkeys(paths, None if is_given else line)
    return lines | dict.fromkeys(given)


def _named(place: Place, node: Any) -> list[str | int]:
    """The place with the names of items instead of their numbers, if they have one."""
    keys: list[str | int] = []
    for key in place:
        try:
            node = node[key]
        except (LookupError, TypeError):  # an override put something else there
            node = None
        keys.append(node.get("name", key) if isinstance(key, int) and isinstance(node, dict) else key)
    return keys


def line_of(path: str, lines: Lines) -> int | None:
    """The line of a field, or else of the section that it would be in."""
    while path and path not in lines:
        path = path.rpartition(".")[0]
    return lines.get(path)
