"""What a person should know of a run besides its metrics: a restart, a damaged checkpoint, a skipped step.

One file a writer and attempt, one JSON line an event: `attempts/0002/rank-00001.events.jsonl`. No two processes write
to one file, so a network's file system mixes nothing up. Besides the ranks, those who start and watch them write: under
Ray `controller` (of workers), `nodes` (that left) and `driver` (of a Ray that is lost); and `sinks` and `alerts`.
"""

import json
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from sft.url_secrets import hide_secrets

Kind = Literal[
    "resumed",
    "restarted",
    "failed",
    "hung",
    "lost",
    "released",
    "checkpoint",
    "skipped",
    "spike",
    "notice",
    "staging",
    "layout",
    "sink",
]
"""`resumed`: an attempt begins to train here. `restarted`: why the one before has ended. `failed`: a rank met an error.
`hung`: a rank saw no progress. `lost`: a rank, a node or what ran the job is gone, by whoever starts the ranks.
`released`: a rank was alive when its group was ended. `checkpoint`: what went wrong with one. `skipped`: a step without
an update. `spike`: a loss out of line. `notice`: a node will be taken away. `staging`: what the nodes' own disks gave,
or did not. `layout`: how examples are laid before the model. `sink`: where metrics or alerts go, or why no more do."""

NO_RANK = -1
"""Of an event that is no rank's."""


@dataclass(frozen=True, slots=True)
class Event:
    """One line: what happened, in words, and the facts that programs look for."""

    kind: Kind
    text: str
    rank: int
    """Whose it is; `NO_RANK`: no rank's."""
    time: float
    """Unix time in seconds."""
    facts: Mapping[str, Any] = field(default_factory=dict, hash=False)


class EventLog:
    """Writes the events of one writer in one attempt. A line is in the file when `add` returns."""

    def __init__(self, folder: Path, writer: int | str) -> None:
        """`folder` is that of the attempt, `writer` a rank or another's name."""
        self._path = event_file(folder, writer)
        self._rank = writer if isinstance(writer, int) else NO_RANK

    def add(self, kind: Kind, text: str, **facts: Any) -> None:
        """Write one event; what cannot be written is lost, as it must not stop the training."""
        event = {"kind": kind, "text": text, "rank": self._rank, "time": time.time(), "facts": facts}
        line = json.dumps(hide_secrets(event))
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
        except OSError:
            sys.stderr.write(f"{line}\n")  # into the rank's log, the last place that is left


def event_file(folder: Path, writer: int | str) -> Path:
    """Where a writer's events of an attempt lie."""
    return folder / f"{f'rank-{writer:05d}' if isinstance(writer, int) else writer}.events.jsonl"


def read_events(folder: Path) -> list[Event]:
    """All events of an attempt, in the order of their time; the cut-off line of a killed process is passed over."""
    events = []
    for path in folder.glob("*.events.jsonl"):
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                events.append(Event(**json.loads(line)))
            except (ValueError, TypeError):
                continue
    return sorted(events, key=lambda event: event.time)
