"""Where Ray keeps its sockets and logs on this machine: a folder that can be written, has room and a short path."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from rich.filesize import decimal

from sft.errors import UserError

SOCKET_BYTES = 103 if os.uname().sysname == "Darwin" else 107
"""The longest path of a socket."""

LONGEST_BELOW = "/session_2026-11-26_18-01-13_123456_1234567/sockets/plasma_store.12"
"""The longest of them, below the folder."""

_LEAST_FREE_BYTES = 64 * 1024**2


def choose_ray_folder() -> str:
    """The first folder that will do: of `RAY_TMPDIR` or `TMPDIR` if set, else of the system.

    Raises:
        UserError: none will do; why, of each.
    """
    problems = {}
    for folder in _candidates():
        problem = _problem(folder)
        if problem is None:
            return folder
        problems[folder] = problem
    told = "\n".join(f"  {folder}: {problem}" for folder, problem in problems.items())
    raise UserError(
        f"Ray needs a folder for its sockets and logs, and none will do:\n{told}\n"
        "Make room in one of them, or set TMPDIR to a short path on a disk with room."
    )


def _candidates() -> Iterator[str]:
    given = [os.environ.get(name) for name in ("RAY_TMPDIR", "TMPDIR")]
    for parent in dict.fromkeys([*filter(None, given), "/tmp", "/var/tmp", "/dev/shm"]):
        # The first is Ray's own choice, which may be another user's.
        for name in ("ray", f"ray-{os.getuid()}"):
            yield os.path.join(os.path.abspath(parent), name)


def _problem(folder: str) -> str | None:
    most = SOCKET_BYTES - len(LONGEST_BELOW)
    if len(os.fsencode(folder)) > most:
        return f"its path is too long for sockets: {len(os.fsencode(folder))} bytes, at most {most}"
    there = next(path for path in (Path(folder), *Path(folder).parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        return f"it cannot be written: {error.strerror}"
    free = shutil.disk_usage(there).free
    return f"only {decimal(free)} are left" if free < _LEAST_FREE_BYTES else None
