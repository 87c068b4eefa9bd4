"""Real ranks, and processes, at the cost of a fork: how tests ask the warm process (`tests.warm_process`) for them."""

import atexit
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
DONE, FAILED = 0, 1
"""Exit codes of ranks."""

_ADDRESS = "SFT_TESTS_WARM_PROCESS"
"""The variable that tells the processes of one run of tests where their warm process listens."""


def begin_warm_process() -> None:
    """Have one for this process and those that it starts. It costs nothing until it is asked for something."""
    folder = Path(tempfile.mkdtemp(prefix="warm-"))  # a short path
    atexit.register(shutil.rmtree, folder)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "socket"))
        listener.listen(64)
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.warm_process", str(listener.fileno())],
            pass_fds=[listener.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"},
        )
    atexit.register(_end, process)
    os.environ[_ADDRESS] = str(folder / "socket")


class Zygote:
    """A fork of the warm process whose forks become the ranks of one group after another."""

    def __init__(self, connection: socket.socket) -> None:
        self._stream = connection.makefile("rw")

    def start(
        self,
        function: Callable[..., int | None],
        size: int,
        log: Path,
        *arguments: Any,
        variables: Mapping[str, str] | None = None,
        longest_seconds: float = 120,
    ) -> list[int]:
        """The exit codes of `size` ranks, each of which calls `function(rank, size, *arguments)`: what that returns.

        The arguments go as JSON. Rank r writes to `log-r.log`.
        """
        request = {
            "module": function.__module__,
            "function": function.__name__,
            "size": size,
            "log": str(log),
            "arguments": arguments,
            "variables": dict(variables or {}),
            "longest_seconds": longest_seconds,
        }
        self._stream.write(json.dumps(request) + "\n")
        self._stream.flush()
        answer = self._stream.readline()
        assert answer, "the warm process has ended, and said why on the terminal"
        codes: list[int] = json.loads(answer)
        return codes


@cache
def zygote() -> Zygote:
    """That of this process."""
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(os.environ[_ADDRESS])
    connection.sendall(bytes(8))  # and no files: it asks for groups
    return Zygote(connection)


def warm_command(what: str, *arguments: str) -> list[str]:
    """The command of a process that runs a module, or a script of Python, without its imports' time."""
    return [sys.executable, "-I", "-S", str(ROOT / "tests" / "warm_client.py"), os.environ[_ADDRESS], what, *arguments]


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.kill()
    process.wait()


def logs_of(log: Path) -> str:
    """The end of what each rank has written."""
    paths = sorted(log.parent.glob(f"{log.name}-*.log"))
    return "\n".join(f"--- {path.name}\n{path.read_text()[-3000:]}" for path in paths)
