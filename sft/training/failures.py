"""What an error of a rank says: whether the machine failed or the program, and whether it will happen again.

A node that is lost is worth another start, as often as it takes while the training gets on. An error of the program
that comes again at the same step comes a third time, too: then it is said which step, packs and rank it is.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from sft.ranks.process_group import GROUP_ERRORS
from sft.run_events import Event, read_events
from sft.run_folder import RunFolder
from sft.training.attempt import Attempt
from sft.training.last_words import is_lost

_LONGEST_PAUSE_SECONDS = 60.0
_MOST_THAT_PAUSE = 8
"""After so many starts in a row the pause is the longest: more of them change nothing."""

_OF_THE_GROUP = (
    *("Connection closed by peer", "Connection reset by peer", "Broken pipe", "Connection refused", "gloo", "NCCL"),
    *("ncclUnhandledCudaError", "Socket Timeout", "Store is not available", "recvValue failed", "sendBytes failed"),
    # A group that was destroyed or aborted under a step.
    *("backend not set", "process group has not been initialized", "Invalid process group", "Invalid rank -1"),
)
"""Texts of errors that a rank meets because another one is gone, or the group."""

_OF_THE_DEVICE = (
    *("uncorrectable ECC", "unspecified launch failure", "device-side hardware", "CUDA error: device unavailable"),
    *("fallen off the bus", "CUDA driver error", "unable to get device handle", "busy or unavailable"),
    *("hardware error", "hardware stack error", "NVLink", "nvlink", "no CUDA-capable device is detected"),
    "system not yet initialized",
)
"""Texts of errors of the hardware or its driver."""


@dataclass(frozen=True, slots=True)
class Failure:
    """An error of the program. Two are the same if stage, step, place and error are."""

    stage: str
    step: int | None
    place: str
    error: str
    text: str = field(compare=False)
    """With the rank and its packs, which differ where the number of ranks does."""


def follows_from_a_loss(error: BaseException) -> bool:
    """Whether another rank, or the group itself, is gone: whoever meets this error is not to blame."""
    return isinstance(error, GROUP_ERRORS) or _has_any(error, _OF_THE_GROUP)


def is_of_the_machine(error: BaseException) -> bool:
    """Whether a lost peer, group, network or device is the reason: nothing that the data or the program did."""
    return follows_from_a_loss(error) or _has_any(error, _OF_THE_DEVICE)


def describe_error(error: BaseException) -> str:
    """Its type and the first line of its text."""
    first_line = (str(error).splitlines() or [""])[0][:500]
    return f"{type(error).__name__}: {first_line}"


def record_failure(attempt: Attempt, error: BaseException) -> None:
    """Write down which error this rank met, and where."""
    position, what = attempt.position, describe_error(error)
    is_released = attempt.released.is_set()
    kind = "machine" if is_released or is_of_the_machine(error) else "program"
    # Of the same error, sizes, addresses and process ids may differ.
    alike = re.sub(r"0x[0-9a-f]+|\d+(\.\d+)?", "#", what)
    place = {"stage": position.stage, "step": position.step, "place": position.place}
    follows = is_released or follows_from_a_loss(error)
    attempt.events.add("failed", f"{position}: {what}", of=kind, follows=follows, error=alike, **place)


def _has_any(error: BaseException, texts: Sequence[str]) -> bool:
    return any(part in str(error) for part in texts)


class History(NamedTuple):
    """The attempts since the driver was started, oldest first: where each began to train, and what went wrong."""

    began_at: tuple[tuple[str, int] | None, ...]
    """(stage, step), or None where it did not come so far."""
    failures: tuple[tuple[Failure, ...], ...]
    """Of the program."""


def read_history(run: RunFolder, first_attempt: int, attempt: int, max_failures: int) -> History:
    """What became of the attempts from `first_attempt` to the one before `attempt`; of many, the last that count."""
    first = max(first_attempt, attempt - max(max_failures + 1, _MOST_THAT_PAUSE))
    events = [read_events(run.attempt(number)) for number in range(first, attempt)]
    return History(tuple(_began_at(e) for e in events), tuple(_program_failures(e) for e in events))


def why_to_give_up(history: History, max_failures: int) -> str | None:
    """The reason not to start again, in words; None where another start is worth it.

    Args:
        history: all attempts before this one have failed.
        max_failures: starts in a row that may come no further than the one before; -1: any number.
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
    """How many of the last attempts began at the same place as the newest one that came so far, or nowhere."""
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
    """The same, after so many failures in a row."""
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
