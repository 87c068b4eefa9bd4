"""Starts the process that speaks to Ray, and reads its messages; the driver itself is not connected to Ray meanwhile.

To its standard input goes the request; before it the job, if Ray is to be started before there is a request. The other
end stays open for as long as the driver lives: when it is closed, the process ends. Each of its messages is a line of
JSON. The run folder keeps what it and Ray print.
"""

import json
import os
import pickle
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import IO, Any, Literal, NamedTuple, get_args

from launcher.cluster.head import answers
from launcher.cluster.ray_process import how_it_ended, start_ray_process
from sft.config import SftConfig
from sft.job_config import JobConfig
from sft.run_folder import RunFolder
from sft.training.prepared import Workload

_END_SECONDS = 20.0

Kind = Literal["finished", "gave up", "wrong input", "lost"]
"""`finished`: Ray Train has ended; the workers' records say how. `gave up`: the workers were started too often, or the
sample answers cannot be written. `wrong input`: Ray cannot be reached or started, or has no room. `lost`: Ray, or the
process itself, is gone."""


class TrainerRequest(NamedTuple):
    """What the process is asked to do."""

    job: JobConfig
    workload: Workload
    first_attempt: int
    """See `sft.training.watched_run.Limits`."""
    trains: bool
    """False where only the sample answers are missing."""


class Connected(NamedTuple):
    """The process has reached or started Ray; see `launcher.cluster.connection.Session`."""

    where: str
    address: str
    note: str | None


class Outcome(NamedTuple):
    """How it ended."""

    kind: Kind
    text: str = ""


def run_process(
    request: TrainerRequest, on_connected: Callable[[Connected], None], early: "EarlyStart | None" = None
) -> Outcome:
    """Start the process, or take the one that was started early, and wait for its end.

    Its Ray ends with it if it has started one.
    """
    run = RunFolder(request.job.sft.run.dir)
    connected: Connected | None = None
    with _started(run, early) as started:
        _send(started, request)
        for line in started.lines:
            message: dict[str, Any] = json.loads(line)
            if (kind := message.pop("is")) in get_args(Kind):
                return Outcome(kind, **message)
            connected = Connected(**message)
            on_connected(connected)
        how = how_it_ended(started.popen.wait())
    if connected is not None and os.environ.get("RAY_ADDRESS") and not answers(connected.address):
        return Outcome("lost", f"the head of {connected.where} is gone: nothing answers at {connected.address}")
    return Outcome("lost", f"the process that speaks to Ray {how} (its log: {run.ray_log})")


def samples_are_missing(config: SftConfig, run: RunFolder, workload: Workload) -> bool:
    """Whether the run's sample answers are wanted and not written yet."""
    return config.evaluate.sample_answers > 0 and workload.heldout is not None and not run.sample_answers.is_file()


class EarlyStart:
    """Such a process, started before there is a request: it imports its libraries while the data is prepared.

    It prints nowhere until it has the request. One that has ended meanwhile is not used.
    """

    def __init__(self, job: JobConfig | None = None) -> None:
        """Start it; with `job`, it also connects to Ray, or starts it, for the job that the request will be for."""
        self._process: _Process | None = _start(subprocess.DEVNULL, job)

    def take(self) -> "_Process | None":
        """The process, once, if it lives."""
        process, self._process = self._process, None
        if process is not None and process.popen.poll() is not None:
            _end(process)
            process = None
        return process

    def close(self) -> None:
        """End it, if nobody has taken it."""
        if self._process is not None:
            _end(self._process)
            self._process = None


class _Process(NamedTuple):
    popen: "subprocess.Popen[bytes]"
    lines: IO[str]
    """Its messages."""


def _start(log: IO[bytes] | int, job: JobConfig | None = None) -> _Process:
    read, write = os.pipe()
    lines = os.fdopen(read, encoding="utf-8")
    try:
        process = _Process(start_ray_process("launcher.cluster.trainer", write, subprocess.PIPE, log), lines)
        if job is not None:
            _send(process, job)
        return process
    except BaseException:
        lines.close()
        raise
    finally:
        os.close(write)


def _send(process: _Process, what: JobConfig | TrainerRequest) -> None:
    assert process.popen.stdin is not None
    with suppress(BrokenPipeError):
        pickle.dump(what, process.popen.stdin)
        process.popen.stdin.flush()


def _end(process: _Process) -> None:
    if process.popen.poll() is None:
        # With the Ray that it has started, whose processes would notice that only after some time.
        os.killpg(process.popen.pid, signal.SIGKILL)
    process.popen.wait()
    process.lines.close()
    assert process.popen.stdin is not None
    with suppress(BrokenPipeError):
        process.popen.stdin.close()


@contextmanager
def _started(run: RunFolder, early: EarlyStart | None) -> Iterator[_Process]:
    with run.ray_log.open("ab") as log:
        process = (early.take() if early is not None else None) or _start(log)
    try:
        yield process
        with suppress(subprocess.TimeoutExpired):
            process.popen.wait(_END_SECONDS)
    finally:
        _end(process)
