"""Starts the process that speaks to Ray again when Ray is lost, for as long as that helps.

The workers count by themselves how often they have come no further (see `sft.training.restarts`); what is counted here
are the losses before any worker has begun.
"""

import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from rich.console import Console

from launcher.cluster.ray_losses import COME_BACK_SECONDS, RayLosses
from launcher.cluster.trainer_process import Connected, Outcome, TrainerProcess, TrainerRequest, run_process
from launcher.console import say_error, styled
from sft.attempt_record import read_ranks
from sft.errors import UserError
from sft.run_events import EventLog
from sft.run_folder import RunFolder
from sft.training.attempt_end import unended_attempt
from sft.training.last_words import RAY

_RANKS_END_SECONDS = 10.0


def supervise(
    request: TrainerRequest, with_what: str, console: Console, early: TrainerProcess | None = None
) -> Outcome:
    """Train, whatever becomes of Ray; never `lost` and never `wrong input`.

    Args:
        request: what is to be done.
        with_what: the workers, in words.
        console: where it is told.
        early: a process that was started early; it is used while it lives.

    Raises:
        UserError: Ray cannot be reached or started in the first place.
    """
    run, max_failures = RunFolder(request.job.sft.run.dir), request.job.cluster.max_failures
    losses = RayLosses(max_failures)

    def on_connected(now: Connected) -> None:
        if now.note:
            say_error(now.note)
        if request.trains and not losses.in_a_row:
            console.print(f"Training with {with_what} on {now.where}.")

    while True:
        latest = run.latest_attempt()
        outcome = run_process(request, on_connected, early)
        if outcome.kind in ("finished", "gave up"):
            return outcome
        if outcome.kind == "wrong input" and not losses.in_a_row:
            raise UserError(outcome.text)
        if outcome.kind == "wrong input" and losses.is_named:
            if losses.may_come_back():
                continue
            return Outcome("gave up", f"{outcome.text}\nIt did not come back in {COME_BACK_SECONDS:.0f} s.")
        if request.trains and run.has_finished(stage.name for stage in request.job.sft.stages):
            request = request._replace(trains=False)  # only the sample answers are left
        losses.add(had_progress=run.latest_attempt() > latest)
        _write_down(run, request.first_attempt, outcome.text)
        if not losses.is_named:
            _end_ranks(run, request.first_attempt)
        if losses.are_too_many:
            when = "before a worker had begun" if request.trains else "before the sample answers were written"
            text = f"Ray was lost {losses.in_a_row} times in a row {when} (cluster.max_failures: {max_failures})"
            return Outcome("gave up", f"{text}. The last time: {outcome.text}")
        follows = _what_follows(request, losses.is_named)
        console.print(styled("[yellow]{:>10}[/]  {}", "lost", f"{outcome.text}; {follows}"))
        losses.pause()


def _what_follows(request: TrainerRequest, is_named: bool) -> str:
    again = "the training goes on at its checkpoint" if request.trains else "the sample answers are written anew"
    return f"{again} as soon as the cluster answers" if is_named else f"Ray is started again, and {again}"


def _write_down(run: RunFolder, first_attempt: int, text: str) -> None:
    """Into the attempt under way: its ranks were ended without a word."""
    if (folder := unended_attempt(run, first_attempt)) is not None:
        EventLog(folder, "driver").add("lost", text, how=RAY)


def _end_ranks(run: RunFolder, first_attempt: int) -> None:
    """Wait for the end of the ranks that a Ray of our own had started here; one that does not end is killed.

    A rank that is left, as one that was stopped, would hold its memory, and could train beside the next ones. Those of
    an earlier start are gone for long: what has their numbers now may be a process of another job's Ray.
    """
    if run.latest_attempt() < first_attempt:
        return
    deadline = time.monotonic() + _RANKS_END_SECONDS
    while left := list(_living_ranks(run)):
        for pid in left if time.monotonic() > deadline else ():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.1)


def _living_ranks(run: RunFolder) -> Iterator[int]:
    for process in read_ranks(run.attempt(run.latest_attempt())).values():
        if process.node == socket.gethostname() and _is_ray_process(process.pid):
            yield process.pid


def _is_ray_process(pid: int) -> bool:
    """Whether it is still one of Ray's, and not another that has got its number."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"ray::")
    except OSError:
        return False
