"""Finds local files: all below a folder, or those that a pattern matches. Links are followed, but no folder twice.

Pipes, sockets and devices are listed too: the caller refuses them.
"""

import glob
import os
from collections.abc import Iterator
from pathlib import Path

_ANY_DEPTH = "**"


def walk_files(folder: str) -> Iterator[str]:
    """Everything below the folder that is not a folder and not hidden."""
    for root, _, names in _walk(folder):
        yield from (os.path.join(root, name) for name in names if not name.startswith("."))


def match_files(pattern: str) -> list[str]:
    """Everything that the pattern matches, as in `glob`, and that is not a folder; sorted."""
    return sorted({path for path in _match(pattern) if not os.path.isdir(path)})


def fixed_part(pattern: str) -> str:
    """The folder that a pattern begins with: the parts before the first one with a wildcard."""
    parts = Path(pattern).parts
    fixed = next((i for i, part in enumerate(parts) if glob.has_magic(part)), len(parts))
    return str(Path(*parts[:fixed]))


def once(paths: list[str]) -> list[str]:
    """The paths in their order, each file once, even where several links lead to it."""
    firsts: dict[str, str] = {}
    for path in paths:
        firsts.setdefault(os.path.realpath(path), path)
    return list(firsts.values())


def _match(pattern: str) -> Iterator[str]:
    """As `glob.glob`, which would loop for ever where a link leads to a folder above it."""
    head, any_depth, tail = _cut_at_any_depth(pattern)
    if not any_depth:
        yield from glob.glob(pattern)
        return
    for start in sorted(glob.glob(os.path.join(head, ""))) if head else [""]:
        for root, _, names in _walk(start or "."):
            inside = root if start else root.removeprefix("./")
            place = "" if inside == "." else inside
            if tail:
                yield from _match(os.path.join(glob.escape(place), tail))
            else:
                yield from (os.path.join(place, name) for name in names if not name.startswith("."))


def _cut_at_any_depth(pattern: str) -> tuple[str, bool, str]:
    parts = pattern.split("/")
    if _ANY_DEPTH not in parts:
        return pattern, False, ""
    at = parts.index(_ANY_DEPTH)
    head = "/".join(parts[:at])
    return (head or "/") if at else "", True, "/".join(parts[at + 1 :])


def _walk(folder: str) -> Iterator[tuple[str, list[str], list[str]]]:
    """As `os.walk`, without hidden folders; a folder that links lead to comes once, by its own path if it has one."""

    def stop(error: OSError) -> None:
        raise error  # a folder without read permission must not be skipped silently

    seen: set[str] = set()
    starts = [folder]
    while starts:
        links: list[str] = []
        for start in starts:
            for root, folders, names in os.walk(start, onerror=stop):
                if (real := os.path.realpath(root)) in seen:
                    folders.clear()
                    continue
                seen.add(real)
                shown = sorted(name for name in folders if not name.startswith("."))
                links += [path for name in shown if os.path.islink(path := os.path.join(root, name))]
                folders[:] = [name for name in shown if not os.path.islink(os.path.join(root, name))]
                yield root, folders, sorted(names)
        starts = links
