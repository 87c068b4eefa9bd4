"""Programs that train in turn, one step each, so that a machine whose speed drifts slows all of them alike.

The programs of all sides are started together. Each rank of each of them asks, before every step, whether it may go on,
and gets its answer when its side has its turn: meanwhile it waits at a socket and takes no CPU. `Turns` is the end that
asks for steps; `Turn` is a rank's.
"""

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Client, Connection, Listener, wait
from pathlib import Path
from typing import NamedTuple, Self

_ADDRESS = "BENCHMARK_TURNS"
_START_SECONDS, _STEP_SECONDS = 300.0, 300.0
_LOOK_SECONDS = 0.5


class Step(NamedTuple):
    """What a side's step took."""

    seconds: float
    """Of wall time: until the last rank asked again."""
    cpu_seconds: float
    """Of all ranks and their threads."""
    num_tokens: int
    """Real tokens that all ranks fed."""

    @property
    def tokens_per_second(self) -> float:
        return self.num_tokens / self.seconds


class Turn:
    """A rank's end."""

    def __init__(self) -> None:
        self._connection = Client(os.environ[_ADDRESS], "AF_UNIX")
        self._cpu_seconds = time.process_time()

    def ask(self, num_tokens: int) -> bool:
        """Wait for the turn; tell how many tokens the step before fed. False: there are no more turns."""
        self._connection.send((num_tokens, time.process_time() - self._cpu_seconds))
        try:
            goes_on = bool(self._connection.recv())
        except EOFError:
            return False
        self._cpu_seconds = time.process_time()
        return goes_on


class Turns:
    """A side: its program, and the ranks that have come to their first step."""

    def __init__(self, name: str, command: Sequence[str], num_ranks: int, variables: Mapping[str, str]) -> None:
        self.name, self._num_ranks = name, num_ranks
        self._stack = contextlib.ExitStack()
        folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory()))
        self._log = folder / "log"
        self._listener = self._stack.enter_context(Listener(str(folder / "socket"), "AF_UNIX", backlog=num_ranks))
        self._listener._listener._socket.settimeout(_LOOK_SECONDS)  # type: ignore[attr-defined]
        self._ranks: list[Connection] = []
        with self._log.open("wb") as log:
            own = {**os.environ, "OMP_NUM_THREADS": "1", **variables, _ADDRESS: str(folder / "socket")}
            self._process = subprocess.Popen(command, stdout=log, stderr=log, env=own, cwd=folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        with contextlib.suppress(OSError):
            for rank in self._ranks:
                rank.send(False)
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.terminate()  # torchrun ends its ranks
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(30)
            self._process.kill()
            self._process.wait()
        for rank in self._ranks:
            rank.close()
        self._stack.close()

    def begin(self) -> None:
        """Wait until all ranks ask for their first step.

        Raises:
            SystemExit: the program ended before, or takes too long; with the end of what it printed.
        """
        deadline = time.monotonic() + _START_SECONDS
        while len(self._ranks) < self._num_ranks:
            with contextlib.suppress(TimeoutError):
                self._ranks.append(self._listener.accept())  # type: ignore[arg-type]
            self._check(deadline)
        self._answers(deadline)

    def step(self) -> Step:
        """Let the side make one step."""
        began = time.perf_counter()
        for rank in self._ranks:
            rank.send(True)
        answers = self._answers(time.monotonic() + _STEP_SECONDS)
        seconds = time.perf_counter() - began
        return Step(seconds, sum(cpu for _, cpu in answers), sum(tokens for tokens, _ in answers))

    def _answers(self, deadline: float) -> list[tuple[int, float]]:
        answers, asked = [], list(self._ranks)
        while asked:
            for rank in wait(asked, _LOOK_SECONDS):
                assert isinstance(rank, Connection)
                try:
                    answers.append(rank.recv())
                except EOFError:
                    self._process.wait(30)
                    self._check(0.0)
                asked.remove(rank)
            self._check(deadline)
        return answers

    def _check(self, deadline: float) -> None:
        if self._process.poll() is not None or time.monotonic() > deadline:
            raise SystemExit(f"{self.name} did not come to its step:\n{self._log.read_text(errors='replace')[-4000:]}")


def torchrun(num_ranks: int, *program: str) -> list[str]:
    """The command that starts the ranks of a program with this Python."""
    return [
        *(sys.executable, "-m", "torch.distributed.run", "--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0"),
        *("--nnodes=1", f"--nproc-per-node={num_ranks}", *program),
    ]
