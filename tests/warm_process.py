"""One warm process for all tests, which has imported what they start: `python -m tests.warm_process SOCKET`.

Its forks are groups of ranks (`tests.zygote`), or run a module or a script: imports would take longer than the work.
`tests.forked_ranks` is how tests ask for either. It warms up when it is first asked, whichever process of tests does.
"""

import ctypes
import fcntl
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import sys
import traceback
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import Any

_MOST_FILES = 16
"""That a command may pass to its fork."""
_FREE_FILES = 200
"""From this number on none is open."""


def main(descriptor: int) -> None:
    """Fork for each connection to the listening socket; never returns. It ends with its parent."""
    _end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the tests, which end this
    listener = socket.socket(fileno=descriptor)
    connection, _ = listener.accept()
    terminal, null = os.dup(2), os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 2)  # DeepSpeed looks what it can compile, and compilers speak
    try:
        zygote = importlib.import_module("tests.zygote")
        zygote.warm_up()
    except BaseException:
        os.dup2(terminal, 2)
        raise
    os.close(terminal)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    gc.freeze()  # else each fork's collections look at all this again, and copy it
    while True:
        if not os.fork():
            listener.close()
            _attend(connection, zygote.serve_groups)
        connection.close()
        connection, _ = listener.accept()


def _attend(connection: socket.socket, serve_groups: Callable[[socket.socket], None]) -> None:
    """Serve a process of tests; or start a fork, which comes with files, and tell how it ended."""
    _end_with_parent()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    size, files, _, _ = socket.recv_fds(connection, 8, _MOST_FILES)
    if not files:
        serve_groups(connection)
        os._exit(0)
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
        # First out of each other's way.
        copies = [fcntl.fcntl(file, fcntl.F_DUPFD_CLOEXEC, _FREE_FILES) for file in files]
        for file in files:
            os.close(file)
        for copy, number in zip(copies, request["files"], strict=True):
            os.dup2(copy, number)
            os.close(copy)
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


if __name__ == "__main__":
    main(int(sys.argv[1]))
