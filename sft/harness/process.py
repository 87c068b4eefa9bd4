"""Starts the process that imports lm_eval, and asks it: its end, for whatever reason, is a sentence."""

import json
import os
import signal
import socket
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from sft.errors import TrainingError, UserError
from sft.own_process import own_environment, own_module

_LAST_LINES = 3
_MOST_LINE_CHARS = 300


class HarnessProcess:
    """A model in a process of its own, with the tasks that it can be asked."""

    def __init__(self, about: Mapping[str, Any], log: Path, environment: Mapping[str, str]) -> None:
        """Start it, and have it look at the tasks; the model is loaded when it is asked first.

        Args:
            about: see `harness_process`.
            log: the file for what it prints.
            environment: variables that it gets besides those of this process.

        Raises:
            UserError: a task is not known, or the harness cannot be used here.
        """
        self._log = log
        here, there = socket.socketpair()
        self._socket = here
        self._replies = here.makefile("rb")
        log.parent.mkdir(parents=True, exist_ok=True)
        with there, log.open("ab") as output:
            self._process = subprocess.Popen(
                own_module("sft.harness.harness_process", str(there.fileno())),
                env=own_environment(**environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=[there.fileno()],
                start_new_session=True,
            )
        try:
            told = self._ask(about)
        except BaseException:
            self.end()
            raise
        if problems := [told["error"]] if "error" in told else told["problems"]:
            self.end()
            raise UserError("\n".join(problems))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def ask(self, term: str, path: Path, samples: Path) -> str:
        """Ask the model a task, whose results go to `path`; returns why there are none, or an empty text.

        Raises:
            TrainingError: the process is gone.
        """
        return str(self._ask({"term": term, "path": str(path), "samples": str(samples)}).get("error", ""))

    def end(self) -> None:
        """Kill it, with all that it has started."""
        self._replies.close()
        self._socket.close()
        if self._process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def _ask(self, content: Mapping[str, Any]) -> dict[str, Any]:
        try:
            self._socket.sendall(json.dumps(content).encode() + b"\n")
            line = self._replies.readline()
        except ConnectionError:
            line = b""
        if not line.endswith(b"\n"):
            raise TrainingError(f"the process of lm-evaluation-harness {self._end_in_words()}")
        return dict(json.loads(line))

    def _end_in_words(self) -> str:
        try:
            code = self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            return f"closed its connection. Its output is in {self._log}"
        if code == -signal.SIGKILL:
            return f"was killed, as the system does where memory is short. Its output is in {self._log}"
        ended = f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
        return f"{ended}: {self._last_words()} All of its output is in {self._log}"

    def _last_words(self) -> str:
        lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines()[-_LAST_LINES:]
        return " ".join(line.strip()[:_MOST_LINE_CHARS] for line in lines)
