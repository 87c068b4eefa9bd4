"""Starts a process that speaks to Ray, so that nothing that Ray does to who is connected to it is done to this one."""

import os
import signal
import subprocess
import sys
from typing import IO

from launcher.interruption import STOP_SIGNALS


def start_ray_process(module: str, descriptor: int, stdin: int, log: IO[bytes]) -> "subprocess.Popen[bytes]":
    """Start a module of this program.

    Args:
        module: its name. It lets the signals pass by that ask to stop, which are this process's, as soon as it runs.
        descriptor: of an open file through which it speaks to this process; its argument.
        stdin: as `subprocess` takes it.
        log: where what it and Ray print goes.
    """
    # As safe from what lies in the working folder as this process is: no folder is put before those that it has.
    command = [sys.executable, "-P", "-m", module, str(descriptor)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    # Until the process is ready for them; it is a session of its own, which a terminal's Ctrl-C does not reach.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        return subprocess.Popen(
            command,
            stdin=stdin,
            stdout=log,
            stderr=log,
            env=environment,
            pass_fds=(descriptor,),
            start_new_session=True,
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def how_it_ended(code: int) -> str:
    """In words, from the exit code of such a process."""
    return f"was killed by signal {-code}" if code < 0 else f"has ended with exit code {code}"
