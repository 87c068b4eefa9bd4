"""Starts the process that speaks to Ray again when Ray is lost, for as long as that helps.

The workers count by themselves how often they have come no further (see `sft.training.failures`); what is counted here
are the losses before any worker has begun. A Ray of our own is started anew. A cluster that others run may come back,
as under Slurm, where each node starts Ray again; it is waited for a while.
"""

import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from rich.console import Console

from launcher.cluster.trainer_process import Connected, Outcome, TrainerRequest, run_process
from launcher.console import say_error, styled
from sft.attempt_record import read_ranks
from sft.errors import UserError
from sft.run_events import EventLog
from sft.run_folder import RunFolder
from sft.training.attempt_end import unended_attempt
from sft.training.last_words import RAY
from sft.training.restarts import pause_after

_COME_BACK_SECONDS = 60.0
_LOOK_SECONDS = 3.0
_RANKS_END_SECONDS = 10.0


def supervise(request: TrainerRequest, with_what: str, console: Console) -> Outcome:
    """Train, whatever becomes of Ray; never `lost` and never `wrong input`.

    Args:
        request: what is to be done.
        with_what: the workers, in words.
        console: where it is told.

    Raises:
        UserError: Ray cannot be reached or started in the first place.
    """
    run, max_failures = RunFolder(request.job.sft.run.dir), request.job.cluster.max_failures
    is_named = bool(os.environ.get("RAY_ADDRESS"))
    connected: list[Connected] = []

    def on_connected(now: Connected) -> None:
        if now.note:
            say_error(now.note)
        if request.trains and not connected:
            console.print(f"Training with {with_what} on {now.where}.")
        connected.append(now)

    num_in_a_row, lost_at = 0, 0.0
    while True:
        latest = run.latest_attempt()
        outcome = run_process(request, on_connected)
        if outcome.kind in ("finished", "gave up"):
            return outcome
        if outcome.kind == "wrong input" and not connected:
            raise UserError(outcome.text)
        if outcome.kind == "wrong input" and is_named:
            if time.monotonic() - lost_at > _COME_BACK_SECONDS:
                return Outcome("gave up", f"{outcome.text}\nIt did not come back in {_COME_BACK_SECONDS:.0f} s.")
            time.sleep(_LOOK_SECONDS)
            continue
        if request.trains and run.has_finished(stage.name for stage in request.job.sft.stages):
            request = request._replace(trains=False)  # only the sample answers are left
        lost_at = time.monotonic()
        num_in_a_row = 1 if run.latest_attempt() > latest else num_in_a_row + 1
        _write_down(run, request.first_attempt, outcome.text)
        if not is_named:
            _end_ranks(run, request.first_attempt)
        if 0 <= max_failures < num_in_a_row:
            when = "before a worker had begun" if request.trains else "before the sample answers were written"
            text = f"Ray was lost {num_in_a_row} times in a row {when} (cluster.max_failures: {max_failures})"
            return Outcome("gave up", f"{text}. The last time: {outcome.text}")
        console.print(styled("[yellow]{:>10}[/]  {}", "lost", f"{outcome.text}; {_what_follows(request, is_named)}"))
        time.sleep(pause_after(num_in_a_row))


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
