"""Starts the process that speaks to Ray, and reads its messages; the driver itself is not connected to Ray meanwhile.

The request goes to its standard input, whose other end stays open for as long as the driver lives: when it is closed,
the process ends. Each of its messages is a line of JSON. The run folder keeps what it and Ray print.
"""

import json
import os
import pickle
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import IO, Any, Literal, NamedTuple, get_args

from launcher.cluster.head import answers
from launcher.cluster.ray_process import how_it_ended, start_ray_process
from sft.config import SftConfig
from sft.job_config import JobConfig
from sft.run_folder import RunFolder
from sft.training.workload import Workload

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


def run_process(request: TrainerRequest, on_connected: Callable[[Connected], None]) -> Outcome:
    """Start the process, and wait for its end; its Ray ends with it if it has started one."""
    run = RunFolder(request.job.sft.run.dir)
    connected: Connected | None = None
    with _started(run) as (process, lines):
        assert process.stdin is not None
        with suppress(BrokenPipeError):
            pickle.dump(request, process.stdin)
            process.stdin.flush()
        for line in lines:
            message: dict[str, Any] = json.loads(line)
            if (kind := message.pop("is")) in get_args(Kind):
                return Outcome(kind, **message)
            connected = Connected(**message)
            on_connected(connected)
        how = how_it_ended(process.wait())
    if connected is not None and os.environ.get("RAY_ADDRESS") and not answers(connected.address):
        return Outcome("lost", f"the head of {connected.where} is gone: nothing answers at {connected.address}")
    return Outcome("lost", f"the process that speaks to Ray {how} (its log: {run.ray_log})")


def samples_are_missing(config: SftConfig, run: RunFolder, workload: Workload) -> bool:
    """Whether the run's sample answers are wanted and not written yet."""
    return config.evaluate.sample_answers > 0 and workload.heldout is not None and not run.sample_answers.is_file()


@contextmanager
def _started(run: RunFolder) -> Iterator[tuple["subprocess.Popen[bytes]", IO[str]]]:
    read, write = os.pipe()
    with run.ray_log.open("ab") as log, os.fdopen(read, encoding="utf-8") as lines:
        try:
            process = start_ray_process("launcher.cluster.trainer", write, subprocess.PIPE, log)
        finally:
            os.close(write)
        try:
            yield process, lines
            with suppress(subprocess.TimeoutExpired):
                process.wait(_END_SECONDS)
        finally:
            process.kill()
            process.wait()
            assert process.stdin is not None
            with suppress(BrokenPipeError):
                process.stdin.close()
