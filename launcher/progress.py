"""Shows a run while it trains: a bar with stage, step, loss, tokens a second and time left, and its events.

It reads the run folder that the workers write, so it needs no connection to them, and shows restarts too. The
only event that it adds there is that nothing has begun since a loss. Without a terminal it prints a line every 15
seconds.
"""

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from launcher.console import styled
from launcher.durations import duration
from sft.monitoring.metrics_tail import MetricsTail
from sft.printable import shortened
from sft.run_events import Event, EventLog, EventTail
from sft.run_folder import RunFolder
from sft.training.last_words import describe_end

_POLL_SECONDS = 0.5
_EVENTS_EVERY_SECONDS = 2.0
_PLAIN_EVERY_SECONDS = 15.0
_MAX_EVENT_CHARS = 4000
_PATIENCE_SECONDS = 30.0
"""How long after a loss it says that no attempt follows. Within this time, the next attempt says what was lost."""
_COLORS = {"resumed": "green", "ended": "green", "failed": "red", "hung": "red"}


@dataclass(frozen=True, slots=True)
class StageProgress:
    """A stage to watch: its name, its steps, and the file that grows by a line a step."""

    name: str
    num_steps: int
    metrics: Path


class RunProgress:
    """A context manager that shows the stages' progress from a thread."""

    def __init__(self, stages: Sequence[StageProgress], run: RunFolder, console: Console) -> None:
        """`console` is where the bar is drawn; others may print to it meanwhile."""
        self._stages = stages
        self._console = console
        self._happenings = _Happenings(run)
        self._looked_at = 0.0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="progress", daemon=True)

    def __enter__(self) -> Self:
        """Start the thread."""
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        """Show the last state and end."""
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        tails = [MetricsTail(stage.metrics) for stage in self._stages]
        if self._console.is_terminal:
            self._draw_bars(tails)
        else:
            self._print_lines(tails)

    def _draw_bars(self, tails: Sequence[MetricsTail]) -> None:
        columns = (
            TextColumn("{task.description}", style="bold", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[state]}", markup=False),
            TimeElapsedColumn(),
        )
        with Progress(*columns, console=self._console) as progress:
            bars = [progress.add_task(s.name, total=s.num_steps, state="", start=False) for s in self._stages]
            while not self._poll_bars(progress, bars, tails):
                pass

    def _poll_bars(self, progress: Progress, bars: Sequence[TaskID], tails: Sequence[MetricsTail]) -> bool:
        ended = self._ended.wait(_POLL_SECONDS)
        self._print_happenings(ended)
        for bar, tail in zip(bars, tails, strict=True):
            if tail.read_new():
                progress.start_task(bar)
                progress.update(bar, completed=tail.num_done, state=_describe(tail))
        return ended

    def _print_lines(self, tails: Sequence[MetricsTail]) -> None:
        printed_at, ended = 0.0, False
        while not ended:
            ended = self._ended.wait(_POLL_SECONDS)
            fresh = [pair for pair in zip(self._stages, tails, strict=True) if pair[1].read_new()]
            is_due = ended or time.monotonic() - printed_at > _PLAIN_EVERY_SECONDS
            shown = [(stage, tail) for stage, tail in fresh if is_due or tail.num_done == stage.num_steps]
            # What happened before a step stands before it.
            self._print_happenings(ended or bool(shown))
            for stage, tail in shown:
                self._console.print(f"{stage.name}  step {tail.num_done}/{stage.num_steps}  {_describe(tail)}")
                printed_at = time.monotonic()

    def _print_happenings(self, now: bool) -> None:
        if not now and time.monotonic() - self._looked_at < _EVENTS_EVERY_SECONDS:
            return
        self._looked_at = time.monotonic()
        for event in self._happenings.read_new():
            color = _COLORS.get(event.kind, "yellow")
            self._console.print(
                styled(f"[{color}]{{:>10}}[/]  {{}}", event.kind, shortened(event.text, _MAX_EVENT_CHARS))
            )


class _Happenings:
    """Events from now on that the user should see; if all ranks meet the same error, only the first."""

    def __init__(self, run: RunFolder, patience_seconds: float = _PATIENCE_SECONDS) -> None:
        self._run = run
        self._patience_seconds = patience_seconds
        self._first = run.latest_attempt() + 1
        self._tail = EventTail(run, self._first)
        self._seen: list[tuple[int, Event]] = []
        self._loss: tuple[int, float] | None = None
        """The attempt that lost something, and when that was seen; None once it was reported."""

    def read_new(self) -> list[Event]:
        """The events that were not returned before."""
        fresh = []
        for number, event in self._tail.read_new():
            if not self._is_known(number, event):
                fresh.append(event)
            elif event.kind == "lost":
                self._loss = number, time.monotonic()
            self._seen.append((number, event))
        self._record_waiting()
        return fresh

    def _record_waiting(self) -> None:
        """A loss after which no attempt begins: perhaps the cluster has no room for one.

        It is written as an event, because alerts are posted for events; the next look reads it.
        """
        if self._loss is None or time.monotonic() - self._loss[1] < self._patience_seconds:
            return
        (number, _), self._loss = self._loss, None
        if self._run.latest_attempt() > number:
            return
        text = (
            f"attempt {number}: {describe_end(self._run.attempt(number))}. No other has begun since then: if the "
            "cluster has no room for the workers, they wait until there is room."
        )
        EventLog(self._run.attempt(number), "driver").add("waiting", text)

    def _is_known(self, number: int, event: Event) -> bool:
        if event.kind == "resumed":
            # The bar shows that the first attempt began, unless that one resumed at a later step.
            return number == self._first and not event.facts.get("step")
        if event.kind in ("lost", "released") or (event.kind == "failed" and event.facts.get("of") == "machine"):
            return True  # the next attempt says what was lost
        return any(n == number and e.text == event.text and e.rank != event.rank for n, e in self._seen)


def _describe(tail: MetricsTail) -> str:
    """Loss, supervised tokens a second, and the time left."""
    assert tail.last is not None
    rate = tail.supervised_tokens_per_second
    left = f"  ETA {duration(tail.seconds_left)}" if tail.seconds_left else ""
    return f"loss {tail.last.loss:.3f}  {rate:,.0f} sup.tok/s{left}"
