"""The folder of a construction: what is in it, and whether it may be used.

records.jsonl    drafts that are kept, a line each        log/replies.jsonl   what was asked and answered
dropped.jsonl    the others, each with filter and reason  manifest.json       counts, and what it was made from
construct.html   what became of all, to look at           DATA_CARD.md        what it is, for whoever gets it
"""

import json
from collections.abc import Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path

from sft.approval.own_files import KIND, MANIFEST, RECORDS
from sft.atomic_files import write_json
from sft.disk_words import MAKE_ROOM, told_of_disk
from sft.errors import UserError

_OURS = (RECORDS, "dropped.jsonl", MANIFEST, "log", "lock", "construct.html", "DATA_CARD.md")


@dataclass(frozen=True, slots=True)
class ConstructionFolder:
    """Where everything is."""

    path: Path

    @property
    def records(self) -> Path:
        """What is kept."""
        return self.path / RECORDS

    @property
    def dropped(self) -> Path:
        """What is not."""
        return self.path / "dropped.jsonl"

    @property
    def manifest(self) -> Path:
        """Counts, and what it was made from."""
        return self.path / MANIFEST

    @property
    def log(self) -> Path:
        """Requests and replies."""
        return self.path / "log" / "replies.jsonl"

    @property
    def lock(self) -> Path:
        """Of the process that works in it."""
        return self.path / "lock"

    @property
    def page(self) -> Path:
        """What has become of all, to look at."""
        return self.path / "construct.html"

    @property
    def card(self) -> Path:
        """What it is and where it comes from, for whoever gets it."""
        return self.path / "DATA_CARD.md"

    def check(self) -> None:
        """Refuse a folder with files of another kind; writes nothing.

        Raises:
            UserError: it is one, or a file.
        """
        if self.path.exists() and not self.path.is_dir():
            raise UserError(f"construct.out: {self.path} is a file, but a folder is needed. Give another path.")
        if self._is_ours() or not self.path.is_dir():
            return
        there = sorted(p.name for p in self.path.iterdir() if p.name != self.lock.name and not p.name.startswith("."))
        if there:
            raise UserError(
                f"construct.out: {self.path} is not the folder of a construction, and holds {', '.join(there[:5])}. "
                f"Give a folder that is empty or not there yet, such as data/constructed."
            )

    def claim(self) -> None:
        """Make it ours, and remove what a killed process left half-written; whoever calls this holds the lock.

        Raises:
            UserError: it cannot be written.
        """
        with written_to(self.path):
            if not self._is_ours():
                write_json(self.manifest, {"kind": KIND, "is_complete": False})
            for name in _OURS:
                for left in self.path.glob(f".{name}.*.partial"):
                    left.unlink(missing_ok=True)

    def _is_ours(self) -> bool:
        with suppress(OSError, ValueError):
            content = json.loads(self.manifest.read_text(encoding="utf-8"))
            return isinstance(content, Mapping) and content.get("kind") == KIND
        return False


def written_to(path: Path) -> AbstractContextManager[None]:
    """For a block that only writes to `path`, which lies in the folder; see `told_of_disk`."""
    return told_of_disk(path, MAKE_ROOM, "construct.out")
