"""Files of constructing and reviewing that hold no records to train on: a pattern or folder must not take them in."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

_DECISIONS = "decisions.jsonl"


def construction_of(path: Path) -> Path | None:
    """The folder of `sft construct` that a file lies in, directly or in its log; None for any other file."""
    return next((folder for folder in (path.parent, path.parent.parent) if _is_construction(folder)), None)


def why_not_a_source(paths: Iterable[str]) -> str:
    """Why a folder or pattern with these files is no source, and what to do; empty if it may be one."""
    seen: dict[Path, Path | None] = {}
    for path in map(Path, paths):
        if path.parent not in seen:
            seen[path.parent] = construction_of(path)
        if (folder := seen[path.parent]) is not None:
            return (
                f"it covers {folder}, a folder of `sft construct`: with what its filters dropped, and its log. Make it "
                f"a source of its own: {{path: {folder}, constructed: true}}, and leave it out here."
            )
        if path.name == _DECISIONS or path.name.endswith(f".{_DECISIONS}"):
            return (
                f"it covers {path}, what reviewers have decided. Make the reviewed file a source of its own, with "
                "constructed: true, and leave both out here."
            )
    return ""


def _is_construction(folder: Path) -> bool:
    try:
        content = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(content, Mapping) and content.get("kind") == "construction"
