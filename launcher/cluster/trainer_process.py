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
from collections.abc import Callable
from contextlib import closing, suppress
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


class TrainerProcess:
    """Such a process. Started before there is a request, it imports its libraries while the data is prepared."""

    def __init__(self, log: IO[bytes] | int = subprocess.DEVNULL, job: JobConfig | None = None) -> None:
        """Start it; with `job`, it also connects to Ray, or starts it, for the job that the request will be for.

        `log` is where it prints until it has the request.
        """
        read, write = os.pipe()
        self.lines = os.fdopen(read, encoding="utf-8")
        """Its messages."""
        try:
            self._process = start_ray_process("launcher.cluster.trainer", write, subprocess.PIPE, log)
        except BaseException:
            self.lines.close()
            raise
        finally:
            os.close(write)
        if job is not None:
            self.send(job)

    def is_alive(self) -> bool:
        """Whether it has not ended yet."""
        return self._process.poll() is None

    def send(self, what: JobConfig | TrainerRequest) -> None:
        """Give it the job or the request; to one that has ended it means nothing."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            pickle.dump(what, self._process.stdin)
            self._process.stdin.flush()

    def wait(self, seconds: float | None = None) -> int:
        """Its exit code, when it has ended.

        Raises:
            subprocess.TimeoutExpired: it has not in this time.
        """
        return self._process.wait(seconds)

    def close(self) -> None:
        """End it, with the Ray that it has started, whose processes would notice that only after some time."""
        if self.is_alive():
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self.lines.close()
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()


def run_process(
    request: TrainerRequest, on_connected: Callable[[Connected], None], early: TrainerProcess | None = None
) -> Outcome:
    """Have such a process do what is asked, and wait for its end: `early` if it lives, else a new one.

    Its Ray ends with it if it has started one.
    """
    run = RunFolder(request.job.sft.run.dir)
    connected: Connected | None = None
    with run.ray_log.open("ab") as log:
        process = early if early is not None and early.is_alive() else TrainerProcess(log)
    with closing(process):
        process.send(request)
        for line in process.lines:
            message: dict[str, Any] = json.loads(line)
            if (kind := message.pop("is")) in get_args(Kind):
                with suppress(subprocess.TimeoutExpired):
                    process.wait(_END_SECONDS)
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
