"""Writes what a construction has made, from the log alone: each file as a whole, and the manifest last."""

from collections.abc import Iterable, Mapping
from hashlib import sha256
from typing import Any, TextIO

from sft.approval.own_files import KIND
from sft.atomic_files import opened_aside, write_json
from sft.construction.counts import Counts
from sft.construction.folder import ConstructionFolder, written_to
from sft.construction.script import Dropped
from sft.construction.work import Ended
from sft.draft import Draft
from sft.json_lines import json_line


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
    with written_to(folder.path):
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
