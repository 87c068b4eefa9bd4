"""Forks of a warm process (`tests.zygote`) that run a module or a script: imports would take longer than the work.

`tests.forked_ranks.warm_command` is the command of a process that stands for such a fork (`tests.warm_client`).
"""

import ctypes
import gc
import json
import os
import runpy
import select
import signal
import socket
import sys
import traceback
import warnings
from contextlib import suppress
from typing import Any


def serve(listener: socket.socket) -> None:
    """Fork for each connection; never returns. It ends with its parent."""
    _end_with_parent()
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1):
        os.dup2(null, descriptor)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    gc.freeze()  # else each fork's collections look at all this again, and copy it
    while True:
        connection, _ = listener.accept()
        if not os.fork():
            listener.close()
            _attend(connection)
        connection.close()


def _attend(connection: socket.socket) -> None:
    """Start a fork, and tell how it ended; who asked for it may end before."""
    _end_with_parent()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    size, files, _, _ = socket.recv_fds(connection, 8, 3)
    content = b""
    while len(content) < int.from_bytes(size, "little"):
        content += connection.recv(1 << 16)
    pid = os.fork()
    if not pid:
        connection.close()
        _become(json.loads(content), files)
    for file in files:
        os.close(file)
    process = os.pidfd_open(pid)
    if process not in select.select([process, connection], [], [])[0]:
        os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    with suppress(OSError):
        connection.sendall(str(os.waitstatus_to_exitcode(status)).encode())
    os._exit(0)


def _become(request: dict[str, Any], files: list[int]) -> None:
    code = 1
    try:
        _end_with_parent()
        for descriptor, file in enumerate(files):
            os.dup2(file, descriptor)
            os.close(file)
        sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w")  # noqa: SIM115  (to its end)
        os.environ.clear()
        os.environ.update(request["variables"])
        os.chdir(request["folder"])
        sys.argv = [request["what"], *request["arguments"]]
        run = runpy.run_path if request["what"].endswith(".py") else runpy.run_module
        warnings.filterwarnings("ignore", ".*found in sys.modules after import", RuntimeWarning)
        run(request["what"], run_name="__main__")
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else bool(end.code)
    except BaseException:
        traceback.print_exc()
    with suppress(Exception):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def _end_with_parent() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
