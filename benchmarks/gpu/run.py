"""Runs the parts, each in a process of its own, prints their rows as they come, and writes one JSON.

The parent imports no torch, so a GPU that breaks down takes a part with it, and nothing else.
"""

import gc
import importlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import IO, Any

from benchmarks.gpu import part as package_part
from benchmarks.gpu.part import Part, Row, Setting, failed
from benchmarks.gpu.parts import ALL_SECONDS, ORDER, PARTS

DESCRIPTION = "Everything that has to be seen on a GPU, in one call. See benchmarks/gpu/__init__.py."
_GRACE_SECONDS = 8.0
"""Between a part's limit and its end by force."""
_START_SECONDS = 90.0
"""For the imports of a process; a cold disk takes its time."""


@dataclass
class Report:
    """All rows so far."""

    out: Path
    rows: dict[int, list[Row]] = field(default_factory=dict)
    seconds: dict[int, float] = field(default_factory=dict)
    date: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))

    def add(self, part: Part, row: Row) -> None:
        self.rows.setdefault(part.number, []).append(row)
        print(f"{part.number} | {row.what} | {row.text}", flush=True)
        self.write()

    def end(self, part: Part, seconds: float) -> None:
        self.seconds[part.number] = seconds
        self.write()

    def write(self) -> None:
        names = {part.number: part.name for part in PARTS}
        parts = [
            {"part": n, "name": names[n], "seconds": self.seconds.get(n), "rows": [row.to_json() for row in rows]}
            for n, rows in sorted(self.rows.items())
        ]
        with tempfile.NamedTemporaryFile("w", dir=self.out.parent, suffix=".tmp", delete=False) as file:
            json.dump({"date": self.date, "parts": parts}, file, indent=1)
        os.replace(file.name, self.out)

    @property
    def num_missed(self) -> int:
        rows = [row for of_part in self.rows.values() for row in of_part]
        return sum(row.error is not None for row in rows) + sum(not g.is_met for row in rows for g in row.goals)


def run_all(device: str, small: bool, separate: bool, folder: Path, only: Sequence[int] | None, out: Path) -> int:
    """Run the parts; returns how many goals were missed and rows failed."""
    parts = [PARTS[number] for number in ORDER if only is None or number in only]
    report, started = Report(out.resolve()), time.monotonic()
    if not separate:
        for part in parts:
            _import(part, device)
        gc.freeze()  # else each engine that is closed looks at everything that was imported
        for part in parts:
            began = time.monotonic()
            for row in rows_of(part, Setting(device, small, folder, began + part.seconds)):
                report.add(part, row)
            report.end(part, time.monotonic() - began)
    else:
        _run_in_processes(parts, (device, small, folder), report, started + ALL_SECONDS)
    print_table(report)
    missed = report.num_missed
    print(f"{time.monotonic() - started:.0f} s; goals missed and cases failed: {missed}; all rows: {out}")
    return min(missed, 100)


def rows_of(part: Part, setting: Setting) -> Iterator[Row]:
    """A part's rows; an error is the last of them."""
    try:
        yield from importlib.import_module(f"benchmarks.gpu.{part.module}").run(setting)
    except Exception as error:
        yield failed(part.name, error)


def serve(number: int, device: str, small: bool, folder: Path) -> None:
    """The life of a part's process: import, wait for the word, write rows."""
    part, out = PARTS[number], os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print
    if device == "cuda":
        from sft.training.worker_variables import set_variables  # noqa: PLC0415  (the parent imports no torch)

        set_variables(deterministic=part.module == "twice")
    _import(part, device)
    print("ready", file=out, flush=True)
    word = sys.stdin.readline()
    if word:
        setting = Setting(device, small, folder, time.monotonic() + float(word))
        for row in rows_of(part, setting):
            print(json.dumps(row.to_json()), file=out, flush=True)


def _import(part: Part, device: str) -> None:
    importlib.import_module(f"benchmarks.gpu.{part.module}")
    if part.has_engine:
        from benchmarks.gpu.training import preload  # noqa: PLC0415  (the parent of processes imports no torch)

        preload(device)


class Process:
    """A part's process, which imports as soon as it is made."""

    def __init__(self, part: Part, device: str, small: bool, folder: Path) -> None:
        arguments = ["--part", str(part.number), "--device", device, "--folder", str(folder)]
        arguments += ["--small"] if small else []
        self.part = part
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  (lives as long as the process)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.gpu", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        self._lines: SimpleQueue[str | None] = SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put(None)

    def rows(self, until: float) -> Iterator[Row]:
        """Its rows, at the latest until then."""
        try:
            line = self._line(_START_SECONDS)
            limit = min(self.part.seconds, until - time.monotonic())
            if line is not None and limit > 0:
                self._say(limit)
                end = time.monotonic() + limit + _GRACE_SECONDS
                while (line := self._line(end - time.monotonic())) is not None:
                    yield Row.of_json(json.loads(line))
            elif line is not None:
                yield Row(self.part.name, error="not begun: the time of all parts is up")
            if code := self._process.wait(_GRACE_SECONDS):
                yield Row(self.part.name, error=f"its process ended with {code}: {self._last_words()}")
        except (Empty, subprocess.TimeoutExpired):
            yield Row(self.part.name, error=f"ended by force after its time: {self._last_words()}")
        finally:
            self.end()

    def _line(self, seconds: float) -> str | None:
        return self._lines.get(timeout=max(0.0, seconds))

    def _say(self, limit: float) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{limit}\n")
        self._process.stdin.flush()

    def _last_words(self) -> str:
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        return " / ".join(lines[-3:])[-400:]

    def end(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        self._reader.join()
        for file in (self._process.stdin, self._process.stdout, self._log):
            if file is not None:
                file.close()


def _run_in_processes(parts: Sequence[Part], where: tuple[str, bool, Path], report: Report, until: float) -> None:
    processes: dict[int, Process] = {}
    try:
        for part, following in zip(parts, [*parts[1:], None], strict=True):
            process = processes.pop(part.number, None) or Process(part, *where)
            if following:
                processes[following.number] = Process(following, *where)
            began = time.monotonic()
            for row in process.rows(until):
                report.add(part, row)
            report.end(part, time.monotonic() - began)
    finally:
        for process in processes.values():
            process.end()


def print_table(report: Report) -> None:
    """All rows, with rich."""
    from rich.console import Console  # noqa: PLC0415  (only for the end)
    from rich.table import Table  # noqa: PLC0415

    table = Table("#", "what", "found", "goals", show_lines=False)
    for number, rows in sorted(report.rows.items()):
        table.add_section()
        table.add_row(str(number), f"[bold]{PARTS[number].name}", _seconds(report, number), "")
        for row in rows:
            table.add_row("", row.what, *_cells(row))
    Console(width=160).print(table)


def _seconds(report: Report, number: int) -> str:
    return f"{report.seconds[number]:.1f} s" if number in report.seconds else ""


def _cells(row: Row) -> tuple[Any, Any]:
    from rich.text import Text  # noqa: PLC0415

    values = ", ".join(f"{name} {package_part.shown(value)}" for name, value in row.values.items())
    color = "red" if row.error or not all(goal.is_met for goal in row.goals) else "green"
    return Text(values), Text(row.error or "\n".join(map(str, row.goals)), style=color)
