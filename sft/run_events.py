"""What the user should know about a run besides its metrics: a restart, a damaged checkpoint, a skipped step.

One file for each writer and attempt, one JSON line for each event: `attempts/0002/rank-00001.events.jsonl`. No two
processes write to the same file, so a network file system mixes nothing up. Besides the ranks, these write: under Ray
`controller` (about workers), `nodes` (that left) and `driver` (about a lost Ray, and a loss after which nothing
begins); and `sinks` and `alerts`.
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
    "forgotten",
    "ended",
    "export",
    "notice",
    "staging",
    "layout",
    "memory",
    "engine",
    "kernels",
    "sharing",
    "sink",
]
"""`resumed`: an attempt begins to train here. `restarted`: why the attempt before ended. `failed`: a rank met an error.
`hung`: a rank saw no progress. `lost`: a rank, a node or what ran the job is gone, as seen by what starts the ranks.
`waiting`: nothing has begun since a loss. `released`: a rank was alive when its group was ended. `checkpoint`: a
problem with one. `skipped`: a step without an update. `spike`: a loss out of line. `forgotten`: a score fell by more
than `evaluate.retain` allows. `ended`: which model of a stage is the best, and why it ended before its budget.
`export`: whether a model does in plain transformers what it does here (`checkpoint.check_export`).
`notice`: a node will be taken away. `staging`: what came from the nodes' own disks, or why not. `layout`: how examples
are laid out for the model. `engine`: which one `auto` has chosen, if not ZeRO-3. `memory`: what was chosen by the
memory of the GPUs. `kernels`: which fused ones the model got, and why not more. `sharing`: what is slow where ranks
share micro-batches. `sink`: where metrics or alerts go, or why they stopped."""

NO_RANK = -1
"""The rank of an event that no rank wrote."""


@dataclass(frozen=True, slots=True)
class Event:
    """One line: what happened, in words, and the facts that programs look for."""

    kind: Kind
    text: str
    rank: int
    """The rank that wrote it, or `NO_RANK`."""
    time: float
    """Unix time in seconds."""
    facts: Mapping[str, Any] = field(default_factory=dict, hash=False)


class EventLog:
    """Writes the events of one writer in one attempt. A line is in the file when `add` returns."""

    def __init__(self, folder: AttemptFolder, writer: int | str) -> None:
        """`writer` is a rank, or the name of another writer."""
        self._path = folder.events(writer)
        self._rank = writer if isinstance(writer, int) else NO_RANK

    def add(self, kind: Kind, text: str, **facts: Any) -> None:
        """Write one event. An event that cannot be written is lost, because it must not stop the training."""
        event = hide_secrets(asdict(Event(kind, text, self._rank, time.time(), facts)))
        try:
            append_line(self._path, event)
        except OSError:
            sys.stderr.write(f"{json.dumps(event)}\n")  # into the rank's log, the only place left


class EventTail:
    """Follows the events of a run: each call of `read_new` returns those that were added."""

    def __init__(self, run: RunFolder, first_attempt: int = 1) -> None:
        """Follow this attempt and all later ones."""
        self._run = run
        self._next = first_attempt
        self._tails: dict[Path, LineTail] = {}

    def read_new(self) -> list[tuple[int, Event]]:
        """Each event with its attempt, in the order of attempts, then of time."""
        added, latest = [], self._run.latest_attempt()
        for number in range(self._next, latest + 1):
            files = self._run.attempt(number).all_events()
            tails = [self._tails.setdefault(path, LineTail(path)) for path in files]
            added += [(number, event) for event in _in_order(line for tail in tails for line in tail.read_new())]
        # The attempt before the newest may still get events from writers that learn of its end.
        self._next = max(self._next, latest - 1)
        return added


def read_events(folder: AttemptFolder) -> list[Event]:
    """All events of an attempt, in the order of time."""
    return _in_order(line for path in folder.all_events() for line in whole_lines(path))


def _in_order(lines: Iterable[bytes]) -> list[Event]:
    """The events of these lines, by time; damaged lines are skipped."""
    events = []
    for line in lines:
        with suppress(ValueError, TypeError):
            events.append(from_json(Event, json.loads(line)))
    return sorted(events, key=lambda event: event.time)
