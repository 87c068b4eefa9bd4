"""Ends a rank that makes no progress, after recording where it is; the launcher then restarts the group.

If one rank hangs, the others wait for it in a collective. Each of them notices by itself, from a thread. It writes the
stacks of all its threads to its log, and where it is to the attempt's folder. A rank that wrote nothing is stopped
completely. A rank that has passed fewer places than the others is behind: it is the straggler.

Only time without progress counts, however long a place takes, and only time in which the process ran: one that was
suspended, by Slurm or a user, continues where it was.
"""

import faulthandler
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

from sft.atomic_files import read_json, write_json
from sft.attempt_record import RankProcesses, named, read_ranks
from sft.run_events import EventLog
from sft.run_folder import AttemptFolder
from sft.training.collective_trace import read_trace, waiting_in
from sft.training.heartbeat import Heartbeat
from sft.world import World

EXIT_HUNG = 4

_LONGEST_GRACE_SECONDS = 10.0
"""How long the ranks wait for each other's reports: they noticed the same hang, but not at the same moment."""


def collective_timeout(hang_timeout_seconds: float) -> timedelta:
    """The timeout of the process group while it starts: longer than this watch, which can name the cause."""
    return timedelta(seconds=60 + 2 * hang_timeout_seconds)


class HangWatch:
    """Watches one rank's heartbeat from a thread."""

    def __init__(
        self,
        heartbeat: Heartbeat,
        world: World,
        folder: AttemptFolder,
        events: EventLog,
        timeout_seconds: float,
        end: Callable[[int], Any] = os._exit,
    ) -> None:
        """`end` ends the process; a thread has no other way to do so."""
        self._heartbeat = heartbeat
        self._world = world
        self._folder = folder
        self._events = events
        self._timeout = timeout_seconds
        self._end = end
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="hang-watch", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Stop watching: the work is over."""
        self._stopped.set()
        faulthandler.cancel_dump_traceback_later()

    def _watch(self) -> None:
        pause = min(self._timeout / 4, 5.0)
        mark, idle_seconds, looked_at = self._heartbeat.mark(), 0.0, time.monotonic()
        while not self._stopped.wait(pause):
            # If Python itself is blocked (a call keeps its lock), no thread can report anything. This writes the
            # stacks, but does not end the process, because it also counts the time of a suspension.
            faulthandler.dump_traceback_later(2 * self._timeout, file=2)
            before, looked_at = looked_at, time.monotonic()
            if (now := self._heartbeat.mark()) != mark:
                mark, idle_seconds = now, 0.0
                continue
            # If a pause was much longer than asked for, this process was not running.
            idle_seconds += min(looked_at - before, 2 * pause)
            if idle_seconds > self._timeout:
                if self._is_still_there(mark):
                    self._end(EXIT_HUNG)
                    return
                idle_seconds = 0.0

    def _is_still_there(self, mark: tuple[int, int, int]) -> bool:
        """Report the hang, unless the rank makes progress before all have reported theirs."""
        heartbeat = self._heartbeat
        sys.stderr.write(f"No progress for {self._timeout:.0f} s at {heartbeat}. The threads of this rank are at:\n")
        sys.stderr.flush()
        faulthandler.dump_traceback(file=2, all_threads=True)
        report = {
            "node": self._world.node,
            "pid": os.getpid(),
            "where": str(heartbeat),
            "passed": heartbeat.num_passed,
            "waits_for": heartbeat.progress.waits_for,
        }
        path = self._folder.hang_report(self._world.rank)
        with self._whatever_the_disk_says():
            write_json(path, report)
            # Afterwards, so that the rank has reported even if this does not return.
            if trace := read_trace(self._world.on_gpu):
                write_json(self._folder.collectives(self._world.rank), trace)
                write_json(path, {**report, "collective": waiting_in(trace)})
        self._stopped.wait(min(_LONGEST_GRACE_SECONDS, self._timeout / 2))
        if self._stopped.is_set() or heartbeat.mark() != mark:
            with self._whatever_the_disk_says():
                path.unlink(missing_ok=True)
                self._folder.collectives(self._world.rank).unlink(missing_ok=True)
            sys.stderr.write(f"It goes on, at {heartbeat}.\n")
            sys.stderr.flush()
            return False
        with self._whatever_the_disk_says():
            if self._is_first_to_report():
                text = describe_hang(self._read_reports(), read_ranks(self._folder))
                self._events.add("hung", text, where=str(heartbeat))
                sys.stderr.write(f"{text}\n")
                sys.stderr.flush()
        return True

    @contextmanager
    def _whatever_the_disk_says(self) -> Iterator[None]:
        """A disk that is full or gone must not keep a hang from being ended."""
        try:
            yield
        except (OSError, ValueError) as error:
            sys.stderr.write(f"The attempt's folder cannot be used: {error}\n")

    def _is_first_to_report(self) -> bool:
        """One speaks for all, so that not each of a thousand ranks has to read the reports of all."""
        return min(self._folder.hang_reports(), default=None) == self._world.rank

    def _read_reports(self) -> dict[int, dict[str, Any]]:
        reports = {}
        for rank, path in self._folder.hang_reports().items():
            with suppress(OSError, ValueError):
                reports[rank] = read_json(path)
        return reports


def describe_hang(reports: Mapping[int, Mapping[str, Any]], ranks: RankProcesses) -> str:
    """Which ranks hold up the others, in a sentence.

    Args:
        reports: for each rank that noticed the hang: where it is (`where`), how many places it `passed`, and which
            ranks have not done their part of shared work there (`waits_for`); `collective`, if torch recorded one.
        ranks: the process of each rank.
    """
    return _who_holds_up(reports, ranks) + _waiting_in(reports)


def _waiting_in(reports: Mapping[int, Mapping[str, Any]]) -> str:
    """`; ranks 0, 2 wait in all_gather 57 of group 0`, for each collective that ranks wait in."""
    ranks_in: dict[str, list[int]] = {}
    for rank, report in sorted(reports.items()):
        if report.get("collective"):
            ranks_in.setdefault(report["collective"], []).append(rank)
    text = ""
    for what, ranks in ranks_in.items():
        who = f"rank {ranks[0]} waits" if len(ranks) == 1 else f"ranks {', '.join(map(str, ranks))} wait"
        text += f"; {who} in {what}"
    return text


def _who_holds_up(reports: Mapping[int, Mapping[str, Any]], ranks: RankProcesses) -> str:
    blocked = sorted(rank for rank, report in reports.items() if rank in report["waits_for"])
    if blocked:
        return f"{named(blocked, ranks)} makes no progress with its part, at {reports[blocked[0]]['where']}"
    silent = sorted(ranks.keys() - reports.keys())
    if silent:
        return f"no sign of life from {named(silent, ranks)}: stopped, or too busy to answer; the others wait for it"
    least, most = (f(r["passed"] for r in reports.values()) for f in (min, max))
    if least == most:
        where = next(iter(reports.values()))["where"]
        return f"all ranks are at the same place ({where}): a collective does not return, check the network"
    behind = sorted(rank for rank, report in reports.items() if report["passed"] == least)
    return f"{named(behind, ranks)} is behind the others, at {reports[behind[0]]['where']}"
