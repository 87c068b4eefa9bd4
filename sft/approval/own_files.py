"""Files of constructing and reviewing that hold no records to train on: a pattern or folder must not take them in."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

KIND = "construction"
"""In the manifest of a folder of `sft construct`."""
MANIFEST, RECORDS, DECISIONS = "manifest.json", "records.jsonl", "decisions.jsonl"
_MOST_BYTES = 1 << 26
"""A larger `manifest.json` is another's, and not read."""


def construction_of(path: Path) -> Path | None:
    """The folder of `sft construct` that a file lies in, directly or in its log; None for any other file."""
    return next((folder for folder in (path.parent, path.parent.parent) if _is_construction(folder)), None)


def why_not_a_source(paths: Sequence[str]) -> str:
    """Why a source with these files is none, and what to do; empty if it may be one.

    The records of a construction may be one by themselves, so that it can be said how many of them are not approved.
    """
    of_folder: dict[Path, Path | None] = {}
    for path in map(Path, paths):
        if path.parent not in of_folder:
            of_folder[path.parent] = construction_of(path)
        folder = of_folder[path.parent]
        if folder is not None and not (len(paths) == 1 and path == folder / RECORDS):
            return (
                f"it reads files of {folder}, a folder of `sft construct`, such as {path.name}: what its filters "
                f"dropped, and its log, are not to be trained. Make the folder a source of its own: "
                f"{{path: {folder}, constructed: true}}, and leave it out here."
            )
        if path.name == DECISIONS or path.name.endswith(f".{DECISIONS}"):
            return (
                f"it reads {path}, what reviewers have decided. Make the reviewed file a source of its own, with "
                "constructed: true, and leave both out here."
            )
    return ""


def _is_construction(folder: Path) -> bool:
    path = folder / MANIFEST
    try:
        content = json.loads(path.read_bytes()) if path.stat().st_size <= _MOST_BYTES else None
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(content, Mapping) and content.get("kind") == KIND
