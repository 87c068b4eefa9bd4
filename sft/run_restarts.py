"""The restarts of a run: how often it began again, why, and at which steps of its stages. All who show them ask here.

    attempts/0002/ … and their events ──find_restarts──▶ Restart(attempt, time, why)
    stages/*/ledger.jsonl ──restart_steps──▶ for each stage, the steps at which a later attempt went on

An attempt that failed before it trained is a restart of the run, but of no stage.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from sft.attempt_record import read_end
from sft.ledger import Resume
from sft.run_events import Event, read_events
from sft.run_folder import RunFolder


@dataclass(frozen=True, slots=True)
class Restart:
    """A later attempt, and why the one before it ended."""

    attempt: int
    time: float
    why: str


def read_restarts(run: RunFolder) -> tuple[Restart, ...]:
    """The restarts of a run so far."""
    attempts = range(1, run.latest_attempt() + 1)
    return find_restarts(run, {number: read_events(run.attempt(number)) for number in attempts})


def find_restarts(run: RunFolder, events: Mapping[int, Sequence[Event]]) -> tuple[Restart, ...]:
    """The restarts of a run whose events, by attempt, are known; one without any may be missing."""
    restarts = []
    for number in range(2, run.latest_attempt() + 1):
        own = events.get(number, ())
        if _had_nothing_to_do(run, number, own):
            continue
        reasons = [event for event in own if event.kind == "restarted"]
        began = next((event for event in own if event.kind in ("restarted", "resumed")), None)
        why = reasons[0].text.partition("ended: ")[2] if reasons else _how_it_ended(run, number - 1)
        restarts.append(Restart(number, began.time if began else math.nan, why))
    return tuple(restarts)


def restart_steps(stages: Iterable[Sequence[Resume]]) -> list[tuple[int, ...]]:
    """For each stage, the steps from which a later attempt trained than the one that had trained before.

    Args:
        stages: what the ledger of each stage says, in the order of the curriculum.
    """
    found, attempt = [], None
    for resumes in stages:
        steps = []
        for resume in resumes:
            if attempt is not None and resume.attempt != attempt:
                steps.append(resume.step)
            attempt = resume.attempt
        found.append(tuple(steps))
    return found


def _had_nothing_to_do(run: RunFolder, attempt: int, events: Sequence[Event]) -> bool:
    """Whether it found that all was trained."""
    ended = read_end(run.attempt(attempt))
    return ended is not None and ended.why == "done" and all(event.kind != "resumed" for event in events)


def _how_it_ended(run: RunFolder, attempt: int) -> str:
    ended = read_end(run.attempt(attempt))
    if ended is None:
        return "the driver was gone"
    return {"stopped": "stopped on request", "regroup": "more workers found room"}.get(ended.why, ended.why)
