"""What a person should know of a run besides its metrics: a restart, a damaged checkpoint, a skipped step.

One file a writer and attempt, one JSON line an event: `attempts/0002/rank-00001.events.jsonl`. No two processes write
to one file, so a network's file system mixes nothing up. Besides the ranks, those who start and watch them write: under
Ray `controller` (of workers), `nodes` (that left) and `driver` (of a Ray that is lost, and of a loss after which
nothing begins); and `sinks` and `alerts`.
"""

import json
import sys
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from sft.json_lines import LineTail, append_line, from_json, whole_lines
from sft.run_folder import AttemptFolder, RunFolder
from sft.url_secrets import hide_secrets

Kind = Literal[
    "resumed",
    "restarted",
    "failed",
    "hung",
    "lost",
    "waiting",
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
`waiting`: nothing has begun since a loss. `released`: a rank was alive when its group was ended. `checkpoint`: what
went wrong with one. `skipped`: a step without an update. `spike`: a loss out of line. `notice`: a node will be taken
away. `staging`: what the nodes' own disks gave, or did not. `layout`: how examples are laid before the model. `sink`:
where metrics or alerts go, or why no more do."""

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

    def __init__(self, folder: AttemptFolder, writer: int | str) -> None:
        """`writer` is a rank or another's name."""
        self._path = folder.events(writer)
        self._rank = writer if isinstance(writer, int) else NO_RANK

    def add(self, kind: Kind, text: str, **facts: Any) -> None:
        """Write one event; what cannot be written is lost, as it must not stop the training."""
        event = hide_secrets(asdict(Event(kind, text, self._rank, time.time(), facts)))
        try:
            append_line(self._path, event)
        except OSError:
            sys.stderr.write(f"{json.dumps(event)}\n")  # into the rank's log, the last place that is left


class EventTail:
    """The events of a run, as often as `read_new` is called: each time those that were added."""

    def __init__(self, run: RunFolder, first_attempt: int = 1) -> None:
        """Of this attempt, and of those that follow."""
        self._run = run
        self._next = first_attempt
        self._tails: dict[Path, LineTail] = {}

    def read_new(self) -> list[tuple[int, Event]]:
        """Each with its attempt, in the order of the attempts and of their time."""
        added, latest = [], self._run.latest_attempt()
        for number in range(self._next, latest + 1):
            files = self._run.attempt(number).all_events()
            tails = [self._tails.setdefault(path, LineTail(path)) for path in files]
            added += [(number, event) for event in _in_order(line for tail in tails for line in tail.read_new())]
        # The attempt before the newest may still be written to, by those who learn of its end.
        self._next = max(self._next, latest - 1)
        return added


def read_events(folder: AttemptFolder) -> list[Event]:
    """All events of an attempt, in the order of their time."""
    return _in_order(line for path in folder.all_events() for line in whole_lines(path))


def _in_order(lines: Iterable[bytes]) -> list[Event]:
    """Damaged lines are passed over."""
    events = []
    for line in lines:
        with suppress(ValueError, TypeError):
            events.append(from_json(Event, json.loads(line)))
    return sorted(events, key=lambda event: event.time)
