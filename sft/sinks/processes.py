"""Starts a process for each sink of a run, and watches them; they cannot affect the training.

The holder of the run folder's lock does this: the driver, or under torchrun the first rank. A process that fails, or
gives no sign of life for a while, is ended, and one event says so. The next start sends what it did not send.
"""

import json
import os
import pickle
import select
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from sft.config import SftConfig
from sft.config_logging import LoggingConfig
from sft.own_process import own_environment, own_module
from sft.run_events import EventLog
from sft.run_folder import RunFolder
from sft.sinks.table import SINKS, wanted_sinks

_END_SECONDS = 15.0

_SILENT_SECONDS = 180.0
"""Longer than W&B itself waits for a run to begin."""

_LOOK_SECONDS = 1.0

_KILLED_SECONDS = 10.0
"""For the end of a process that was killed; longer only if the system does not come to it."""


class SinkRequest(NamedTuple):
    """What a process is asked to do."""

    sink: str
    logging: LoggingConfig
    run: Path
    name: str
    stages: tuple[str, ...]
    end_seconds: float
    """How long it may take after the training to send the rest."""


@contextmanager
def sinks_fed(
    config: SftConfig,
    first_attempt: int,
    silent_seconds: float = _SILENT_SECONDS,
    end_seconds: float = _END_SECONDS,
) -> Iterator[None]:
    """While open, sends the metrics of the run to its sinks.

    Args:
        config: the run's, with absolute paths; its record is in the run folder.
        first_attempt: the next one, or the one that is running. Events are written into it, or into a later one.
        silent_seconds: a process without a sign of life for this long is ended.
        end_seconds: how long all of them may take to send the rest when this is closed.
    """
    run = RunFolder(config.run.dir)
    told = _Told(run, first_attempt)
    stages = tuple(stage.name for stage in config.stages)
    processes = []
    for name in wanted_sinks(config.logging):
        request = SinkRequest(name, config.logging, run.path, config.run.name, stages, end_seconds)
        try:
            processes.append(_SinkProcess(request, told, silent_seconds))
        except OSError as error:
            told.add(f"{SINKS[name].title} gets no metrics: its process cannot be started: {error}")
    try:
        yield
    finally:
        for process in processes:
            process.end()
        deadline = time.monotonic() + end_seconds
        for process in processes:
            process.join(deadline - time.monotonic())
        told.flush()


class _Told:
    """Writes events into the newest attempt; keeps them until there is one."""

    def __init__(self, run: RunFolder, first_attempt: int) -> None:
        self._run = run
        self._first = first_attempt
        self._kept: list[str] = []
        self._lock = threading.Lock()

    def add(self, text: str) -> None:
        with self._lock:
            self._kept.append(text)

    def flush(self) -> None:
        with self._lock:
            if self._kept and (number := self._run.latest_attempt()) >= self._first:
                log = EventLog(self._run.attempt(number), "sinks")
                while self._kept:
                    log.add("sink", self._kept.pop(0))


class _SinkProcess:
    """One process, and the thread that listens to it."""

    def __init__(self, request: SinkRequest, told: _Told, silent_seconds: float) -> None:
        self._title, self._told, self._silent_seconds = SINKS[request.sink].title, told, silent_seconds
        self._log = RunFolder(request.run).sink_log(request.sink)
        self._why: str | None = None
        self._ended = False
        self._read, write = os.pipe()
        self._log.parent.mkdir(exist_ok=True)
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                own_module("sft.sinks", str(write)),
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=own_environment(),
                pass_fds=(write,),
                start_new_session=True,  # Ctrl-C must not reach it
            )
        os.close(write)
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            pickle.dump(request, self._process.stdin)
            self._process.stdin.flush()
        self._thread = threading.Thread(target=self._listen, name=f"sink-{request.sink}", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Tell it that the training is over: it sends the rest, and ends."""
        self._ended = True
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()

    def join(self, seconds: float) -> None:
        """Wait for its end; end it after this many seconds."""
        self._thread.join(max(seconds, 0.0))
        if self._thread.is_alive():
            self._why = self._why or "it did not send the rest in time after the training ended"
            self._kill()
            self._thread.join(_KILLED_SECONDS)

    def _listen(self) -> None:
        silent_seconds, pending = 0.0, b""
        while True:
            looked_at = time.monotonic()
            if select.select([self._read], [], [], _LOOK_SECONDS)[0]:
                silent_seconds = 0.0
                added = os.read(self._read, 65536)
                if not added:
                    break
                *whole, pending = (pending + added).split(b"\n")
                for line in whole:
                    self._hear(json.loads(line))
            else:
                # After a much longer pause, this process itself was not running.
                silent_seconds += min(time.monotonic() - looked_at, 2 * _LOOK_SECONDS)
            if silent_seconds > self._silent_seconds:
                self._why = self._why or f"no sign of life for {self._silent_seconds:.0f} s"
                break
            self._told.flush()
        self._kill()
        code = self._process.wait()
        os.close(self._read)
        if self._why is None and code != 0:
            self._why = f"its process was ended by signal {-code}" if code < 0 else f"exit code {code}"
        if self._why is not None:
            self._told.add(
                f"{self._title} gets no more metrics until the next start, which sends what is missing: {self._why} "
                f"(its log: {self._log})"
            )
        self._told.flush()

    def _hear(self, message: dict[str, str]) -> None:
        if "where" in message and message["where"].startswith("http"):
            self._told.add(f"{self._title}: {message['where']}")
        self._why = message.get("failed", self._why)

    def _kill(self) -> None:
        """Kill it, and all processes that it started, unless it ends by itself."""
        if not self._ended or self._why is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
