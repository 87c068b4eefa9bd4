"""A server of vLLM on loopback, for as long as a context is open."""

import http.client
import json
import os
import secrets
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from sft.endpoint.chat import read_models
from sft.endpoint.endpoint import Endpoint
from sft.errors import TrainingError
from sft.own_process import own_environment, own_module
from sft.url_secrets import remember_secret
from sft.vllm.command import ServedFolder, VllmCommand
from sft.vllm.leash import NOT_STARTED
from sft.vllm.log import is_port_taken, reason_in

_MOST_PORTS = 3
_LOOK_SECONDS = 0.25
_ANSWER_SECONDS = 10.0
_END_SECONDS = 40.0
"""Longer than the leash takes."""
_DYING_SECONDS = 10.0
"""Between the first answer that fails and the end of a server whose engine is gone."""
_MOST_BYTES = 1 << 20


class VllmServer(NamedTuple):
    """A server that answers."""

    endpoint: Endpoint
    how_it_ended: Callable[[], str]
    """In words; an empty text while it lives. It waits a while for the end of one that is about to end."""


@contextmanager
def serving(command: VllmCommand, folder: ServedFolder, log: Path, seconds: float) -> Iterator[VllmServer]:
    """Start a server, and wait until it answers.

    Args:
        command: starts it.
        folder: what it serves.
        log: the file for its output.
        seconds: how long it may load.

    Raises:
        TrainingError: it ended, or does not answer in time.
    """
    for left in reversed(range(_MOST_PORTS)):
        process = _Process(command, folder, log)
        try:
            if process.wait_until_ready(seconds) or not left or not is_port_taken(log):
                process.check_started(seconds)
                yield VllmServer(process.endpoint, process.how_it_ended)
                return
        finally:
            process.end()


class _Process:
    """vLLM behind its leash."""

    def __init__(self, command: VllmCommand, folder: ServedFolder, log: Path) -> None:
        self._log, self._path = log, folder.path
        self._port, key = _free_port(), secrets.token_hex(24)
        remember_secret(key)
        # A name that no other server has: that which answers at the port is the one that was started.
        name = f"sft-{secrets.token_hex(8)}"
        self.endpoint = Endpoint(f"http://127.0.0.1:{self._port}/v1", name, own_key=key)
        about = {
            "command": command.words(folder, name, self._port),
            "environment": {**os.environ, "VLLM_API_KEY": key, "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"},
        }
        with log.open("wb") as output:
            self._leash = subprocess.Popen(
                own_module("sft.vllm.leash"),
                env=own_environment(),
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        assert self._leash.stdin is not None
        with suppress(BrokenPipeError):
            self._leash.stdin.write(json.dumps(about).encode() + b"\n")
            self._leash.stdin.flush()

    def wait_until_ready(self, seconds: float) -> bool:
        """Whether it answers before this time is over; False as soon as it has ended."""
        ends = time.monotonic() + seconds
        while self._leash.poll() is None and time.monotonic() < ends:
            if self._answers():
                return True
            time.sleep(_LOOK_SECONDS)
        return False

    def check_started(self, seconds: float) -> None:
        """To be called when it is ready, or waiting was in vain.

        Raises:
            TrainingError: it has ended, or does not answer.
        """
        if self._leash.poll() is not None:
            raise TrainingError(f"{self._end_in_words()} while it loaded {self._path}: {self._reason}.")
        if not self._answers():
            raise TrainingError(
                f"vLLM does not answer after {seconds / 60:g} minutes, in which it loaded {self._path}: "
                f"{self._reason}. --vllm-minutes gives it longer."
            )

    def how_it_ended(self) -> str:
        """See `VllmServer`."""
        with suppress(subprocess.TimeoutExpired):
            self._leash.wait(0.0 if self._answers() else _DYING_SECONDS)
        if self._leash.poll() is None:
            return ""
        return f"{self._end_in_words()}: {self._reason}."

    def end(self) -> None:
        """End it, with all that it has started; its memory is free then."""
        assert self._leash.stdin is not None
        with suppress(BrokenPipeError):
            self._leash.stdin.close()
        try:
            self._leash.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(self._leash.pid, signal.SIGKILL)
            self._leash.wait()

    def _answers(self) -> bool:
        """Whether it lists its model. Proxies of the environment play no part."""
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=_ANSWER_SECONDS)
        try:
            connection.request("GET", "/v1/models", headers={"Authorization": f"Bearer {self.endpoint.key()}"})
            return self.endpoint.model in read_models(connection.getresponse().read(_MOST_BYTES))
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def _end_in_words(self) -> str:
        code = self._leash.wait()
        if code in (128 + signal.SIGKILL, -signal.SIGKILL):
            return "vLLM was killed, as the system does where memory is short,"
        return "vLLM cannot be started" if code == NOT_STARTED else f"vLLM ended with exit code {code}"

    @property
    def _reason(self) -> str:
        return f"{reason_in(self._log) or 'it said nothing'} (all of its output is in {self._log})"


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
