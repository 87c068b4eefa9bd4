"""Real ranks at the cost of a fork: how tests have `tests.zygote` start them."""

import atexit
import json
import os
import subprocess
import sys
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
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, "the zygote has ended: `python -m tests.zygote` says why"
        codes: list[int] = json.loads(answer)
        return codes


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


def _end(process: "subprocess.Popen[str]") -> None:
    process.kill()
    process.communicate()


def logs_of(log: Path) -> str:
    """The end of what each rank has written."""
    paths = sorted(log.parent.glob(f"{log.name}-*.log"))
    return "\n".join(f"--- {path.name}\n{path.read_text()[-3000:]}" for path in paths)
