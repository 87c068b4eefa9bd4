"""Starts a process that speaks to Ray, so that nothing that Ray does to who is connected to it is done to this one."""

import signal
import subprocess
from typing import IO

from launcher.interruption import STOP_SIGNALS
from sft.own_process import own_environment, own_module


def start_ray_process(module: str, descriptor: int, stdin: int, log: IO[bytes] | int) -> "subprocess.Popen[bytes]":
    """Start a module of this program.

    Args:
        module: its name. It lets the signals pass by that ask to stop, which are this process's, as soon as it runs.
        descriptor: of an open file through which it speaks to this process; its argument.
        stdin: as `subprocess` takes it.
        log: where what it and Ray print goes.
    """
    # Until the process is ready for them; it is a session of its own, which a terminal's Ctrl-C does not reach.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        return subprocess.Popen(
            own_module(module, str(descriptor)),
            stdin=stdin,
            stdout=log,
            stderr=log,
            env=own_environment(),
            pass_fds=(descriptor,),
            start_new_session=True,
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def how_it_ended(code: int) -> str:
    """In words, from the exit code of such a process."""
    return f"was killed by signal {-code}" if code < 0 else f"has ended with exit code {code}"
