"""Real ranks, and processes, at the cost of a fork: how tests have `tests.zygote` start them."""

import atexit
import json
import os
import shutil
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


class Zygote:
    """A warm process whose forks become the ranks of one group after another."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

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
        codes: list[int] = self._ask(request)
        return codes

    def serve(self, address: str) -> None:
        """From now on, make forks for those who connect to this address (see `tests.warm_process`)."""
        self._ask({"serve": address})

    def _ask(self, request: dict[str, Any]) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, "the zygote has ended: `python -m tests.zygote` says why"
        return json.loads(answer)


@cache
def zygote() -> Zygote:
    """That of this process, which starts it when it is first asked for, and ends it with itself."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.zygote"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # DeepSpeed looks what it can compile, and compilers speak
        text=True,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    atexit.register(_end, process)
    return Zygote(process)


@cache
def _address() -> str:
    address = str(Path(tempfile.mkdtemp(prefix="warm-"), "socket"))  # a short path
    atexit.register(shutil.rmtree, Path(address).parent)
    zygote().serve(address)
    return address


def warm_command(what: str, *arguments: str) -> list[str]:
    """The command of a process that runs a module, or a script of Python, without its imports' time."""
    return [sys.executable, "-I", "-S", str(ROOT / "tests" / "warm_client.py"), _address(), what, *arguments]


def _end(process: "subprocess.Popen[str]") -> None:
    process.kill()
    process.communicate()


def logs_of(log: Path) -> str:
    """The end of what each rank has written."""
    paths = sorted(log.parent.glob(f"{log.name}-*.log"))
    return "\n".join(f"--- {path.name}\n{path.read_text()[-3000:]}" for path in paths)
