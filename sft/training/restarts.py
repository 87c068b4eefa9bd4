"""Whether a failed run is worth another start, and after which pause; decided from the record, without torch.

A lost node is worth another start, as often as needed while the training makes progress. An error of the program that
comes twice at the same step would come a third time, too: then the message names step, packs and rank.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from sft.run_events import Event, read_events
from sft.run_folder import RunFolder
from sft.training.last_words import is_lost

_LONGEST_PAUSE_SECONDS = 60.0
_MOST_THAT_PAUSE = 8
"""After this many starts in a row, the pause is at its longest."""


@dataclass(frozen=True, slots=True)
class Failure:
    """An error of the program. Two are equal if stage, step, place and error are equal."""

    stage: str
    step: int | None
    place: str
    error: str
    text: str = field(compare=False)
    """Includes the rank and its packs, which differ with the number of ranks."""


class History(NamedTuple):
    """The attempts since the driver was started, oldest first: where each began to train, and what went wrong."""

    began_at: tuple[tuple[str, int] | None, ...]
    """(stage, step), or None if it did not get so far."""
    failures: tuple[tuple[Failure, ...], ...]
    """The program's errors in each attempt."""


def read_history(run: RunFolder, first_attempt: int, attempt: int, max_failures: int) -> History:
    """The history of the attempts from `first_attempt` to the one before `attempt`, or of the last ones of many."""
    first = max(first_attempt, attempt - max(max_failures + 1, _MOST_THAT_PAUSE))
    events = [read_events(run.attempt(number)) for number in range(first, attempt)]
    return History(tuple(_began_at(e) for e in events), tuple(_program_failures(e) for e in events))


def why_to_give_up(history: History, max_failures: int) -> str | None:
    """The reason not to start again, in words; None if another start is worth it.

    Args:
        history: all attempts before this one have failed.
        max_failures: the most starts in a row without progress; -1: any number.
    """
    if len(history.failures) >= 2:
        again = [f for f in history.failures[-1] if f in history.failures[-2]]
        if again:
            return (
                f"the same error came twice at the same place, so it would come again:\n  {again[0].text}\n"
                "Correct what it names; the same command then goes on from the last checkpoint."
            )
    stuck = count_without_progress(history)
    if max_failures >= 0 and stuck > max_failures:
        return (
            f"{stuck} starts in a row failed without a new checkpoint in between (cluster.max_failures: "
            f"{max_failures}). The workers' logs say why."
        )
    return None


def count_without_progress(history: History) -> int:
    """How many of the last attempts began at the same place as the newest one that began to train, or nowhere."""
    last = next((place for place in reversed(history.began_at) if place is not None), None)
    count = 0
    for place in reversed(history.began_at):
        if place is not None and place != last:
            break
        count += 1
    return count


def pause_seconds(history: History) -> float:
    """How long to wait before the next start: none after one failure, then twice as long each time."""
    return pause_after(count_without_progress(history))


def pause_after(num_in_a_row: int) -> float:
    """The pause after this many failures in a row."""
    return 0.0 if num_in_a_row < 2 else min(_LONGEST_PAUSE_SECONDS, 2.0 ** min(num_in_a_row - 1, _MOST_THAT_PAUSE))


def _began_at(events: Sequence[Event]) -> tuple[str, int] | None:
    places = [(str(e.facts["stage"]), int(e.facts["step"])) for e in events if e.kind == "resumed"]
    return places[-1] if places else None


def _program_failures(events: Sequence[Event]) -> tuple[Failure, ...]:
    if is_lost(events):
        return ()
    return tuple(
        Failure(e.facts["stage"], e.facts["step"], e.facts["place"], e.facts["error"], f"rank {e.rank}: {e.text}")
        for e in events
        if e.kind == "failed" and e.facts["of"] == "program"
    )
