"""Tries to break out of the sandbox on this machine before any model's code runs: what holds elsewhere may not here."""

import os
import socket
import sys
import tempfile
from functools import cache
from pathlib import Path

from sft.scoring.sandbox import CodeLimits, SandboxMissing, run_code, shown_folders

_LIMITS = CodeLimits(seconds=20.0, memory_mib=256, num_processes=4)

# Each attempt runs inside; one that succeeds is a hole.
_ATTEMPTS = """
import os, socket
holes = []

def attempt(hole, action, *arguments):
    try:
        action(*arguments)
    except (OSError, MemoryError):
        return
    holes.append(hole)

def start_processes():
    started = []
    try:
        for _ in range(2 * num_processes):
            pid = os.fork()
            if pid == 0:
                os.read(os.pipe()[0], 1)
            started.append(pid)
    finally:
        for pid in started:
            os.kill(pid, 9)
            os.waitpid(pid, 0)

attempt("code connects to a server of this machine", socket.create_connection, ("127.0.0.1", port), 1)
attempt("code reads a file of the user", open, secret)
attempt("code writes to Python's own folder", open, os.__file__, "a")
attempt("code signals a process outside", os.kill, process, 0)
attempt("code changes the root of its file system", os.chroot, "/")
attempt("code starts more processes than it may", start_processes)
attempt("code takes more memory than it may", bytearray, 2 * memory_bytes)
if os.path.exists("/proc/self"):
    holes.append("code sees processes")
if os.getuid() == 0:
    holes.append("code is root")
if canary in os.environ:
    holes.append("code sees the environment")
"""


@cache
def prove_sandbox() -> None:
    """Check once in this process that code cannot break out.

    Raises:
        SandboxMissing: it can, or there is no sandbox here; names everything that it could do.
    """
    canary = f"SFT_CANARY_{os.getpid()}"
    with tempfile.NamedTemporaryFile() as secret, socket.create_server(("127.0.0.1", 0)) as server:
        os.environ[canary] = "1"
        try:
            given = {
                "port": server.getsockname()[1],
                "secret": secret.name,
                "process": os.getpid(),
                "num_processes": _LIMITS.num_processes,
                "memory_bytes": _LIMITS.memory_mib << 20,
                "canary": canary,
            }
            told = "\n".join(f"{name} = {value!r}" for name, value in given.items())
            outcome = run_code(told + _ATTEMPTS, ("assert not holes, ', '.join(holes)",), "", _LIMITS)
        except ChildProcessError as error:
            raise SandboxMissing(_refusal(str(error))) from error
        finally:
            del os.environ[canary]
    home = Path.home().resolve()
    open_folders = [folder for folder in shown_folders() if home.is_relative_to(folder)]
    if outcome.passed and not open_folders:
        return
    if open_folders:
        raise SandboxMissing(_refusal(f"Python lies in {open_folders[0]}, which holds the home folder"))
    raise SandboxMissing(_refusal(f"in a try, {outcome.reason.rpartition('AssertionError: ')[2]}"))


def _refusal(reason: str) -> str:
    return (
        f"score: code: code cannot be run safely on this machine, under {sys.executable}: {reason}. Run it as another "
        f"user or on another machine, or choose another score."
    )
