"""The folder of a construction: what is in it, whether it may be used, and its files as they are written from the log.

records.jsonl    drafts that are kept, a line each        log/replies.jsonl   what was asked and answered
dropped.jsonl    the others, each with filter and reason  manifest.json       counts, and what it was made from
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, TextIO

from sft.atomic_files import opened_aside, write_json
from sft.construction.rounds import Ended
from sft.construction.script import Dropped, Failed
from sft.draft import Draft
from sft.errors import UserError
from sft.json_lines import json_line

KIND = "construction"
MOST_REASONS = 50
OTHER = "other reasons"
_OURS = ("records.jsonl", "dropped.jsonl", "manifest.json", "log", "lock", "construct.html", "DATA_CARD.md")


@dataclass(frozen=True, slots=True)
class ConstructionFolder:
    """Where everything is."""

    path: Path

    @property
    def records(self) -> Path:
        """What is kept."""
        return self.path / "records.jsonl"

    @property
    def dropped(self) -> Path:
        """What is not."""
        return self.path / "dropped.jsonl"

    @property
    def manifest(self) -> Path:
        """Counts, and what it was made from."""
        return self.path / "manifest.json"

    @property
    def log(self) -> Path:
        """Requests and replies."""
        return self.path / "log" / "replies.jsonl"

    @property
    def lock(self) -> Path:
        """Of the process that works in it."""
        return self.path / "lock"

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
        """Make it ours, and remove what a killed process left half-written; whoever calls this holds the lock."""
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


@dataclass(slots=True)
class Counts:
    """How the scripts ended: made is kept and dropped; those that made nothing are counted by their reasons."""

    wanted: int = 0
    kept: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    """By filter and reason."""
    not_made: Counter[str] = field(default_factory=Counter)
    """By reason."""
    num_open: int = 0
    """Of those not made: the same command goes on with them."""

    def add(self, ended: Ended) -> None:
        """Count a script."""
        outcome = ended.outcome
        self.wanted += 1
        if isinstance(outcome, Failed):
            self.not_made[_known(outcome.reason, self.not_made)] += 1
            self.num_open += not outcome.is_final
        elif isinstance(outcome, Dropped):
            self.dropped[_known(f"{outcome.filter}: {outcome.reason}", self.dropped)] += 1
        else:
            self.kept += 1

    def as_json(self) -> dict[str, Any]:
        """The counts; that nothing is lost is checked.

        Raises:
            AssertionError: a script is not counted once.
        """
        assert self.wanted == self.kept + self.dropped.total() + self.not_made.total(), self
        return {
            "num_wanted": self.wanted,
            "num_made": self.kept + self.dropped.total(),
            "num_kept": self.kept,
            "num_dropped": self.dropped.total(),
            "num_not_made": self.not_made.total(),
            "num_open": self.num_open,
            "dropped": dict(self.dropped.most_common()),
            "not_made": dict(self.not_made.most_common()),
        }


def write_output(
    folder: ConstructionFolder, ended: Iterable[Ended], about: Mapping[str, Any]
) -> tuple[Counts, dict[tuple[str, str], Counts]]:
    """Write records, dropped ones and the manifest, each whole; in this order, so that the manifest is of both.

    Args:
        folder: locked by this process.
        ended: all scripts in their order; they are not in memory together.
        about: what else the manifest says.

    Returns:
        The counts of all scripts, and those of each recipe and task.

    Raises:
        UserError: they cannot be written; what was there is unchanged.
    """
    counts, by_part = Counts(), dict[tuple[str, str], Counts]()
    try:
        with opened_aside(folder.records) as records, opened_aside(folder.dropped) as dropped:
            files = _Hashed(records), _Hashed(dropped)
            for one in ended:
                counts.add(one)
                by_part.setdefault((one.name.recipe, one.name.task), Counts()).add(one)
                if isinstance(one.outcome, Draft):
                    files[0].write(one.outcome.as_json())
                elif isinstance(one.outcome, Dropped):
                    why = {"filter": one.outcome.filter, "reason": one.outcome.reason}
                    files[1].write({**one.outcome.draft.as_json(), "dropped": why})
        by_name = [{"recipe": recipe, "task": task, **part.as_json()} for (recipe, task), part in by_part.items()]
        hashes = {path.name: f.digest for path, f in zip((folder.records, folder.dropped), files, strict=True)}
        content = {"kind": KIND, "is_complete": not counts.num_open, **counts.as_json(), "parts": by_name}
        write_json(folder.manifest, {**content, **about, "sha256": hashes})
    except OSError as error:
        raise UserError(
            f"construct.out: {folder.path} cannot be written: {error.strerror or error}. Make room, and give the same "
            f"command again: nothing that was paid is lost."
        ) from error
    return counts, by_part


class _Hashed:
    """Lines that are written and hashed."""

    def __init__(self, file: TextIO) -> None:
        self._file, self._hash = file, sha256()

    def write(self, content: Mapping[str, Any]) -> None:
        """Write a line."""
        line = json_line(content)
        self._hash.update(line.encode())
        self._file.write(line)

    @property
    def digest(self) -> str:
        """Of all lines."""
        return self._hash.hexdigest()


def _known(reason: str, counted: Mapping[str, int]) -> str:
    """The reason, or that there are too many to list each."""
    return reason if reason in counted or len(counted) < MOST_REASONS else OTHER
