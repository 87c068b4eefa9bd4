"""A folder for the Ray of a test, which Ray's processes may outlive for a moment."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from tests.cluster.running import wait_until

_END_SECONDS = 30
_NUM_TRIES = 10


@contextmanager
def ray_folder() -> Iterator[Path]:
    """One with a short path, for sockets. It is removed when no process has a file below it open any more.

    Raises:
        AssertionError: one still has, long after the block ended; it is killed.
    """
    folder = Path(tempfile.mkdtemp(prefix="ray-"))
    try:
        yield folder
        wait_until(lambda: not _users(folder), _END_SECONDS, f"processes still have files open in {folder}")
    finally:
        for process in _users(folder):
            process.kill()
        _remove(folder)


def _users(folder: Path) -> list[psutil.Process]:
    users = []
    for process in psutil.process_iter():
        try:
            files = [file.path for file in process.open_files()]
        except psutil.Error:
            continue  # it has ended, or is another user's
        if any(folder in Path(path).parents for path in files):
            users.append(process)
    return users


def _remove(folder: Path) -> None:
    for _ in range(_NUM_TRIES):
        shutil.rmtree(folder, ignore_errors=True)  # a process that ends may still make a file
        if not folder.exists():
            return
    raise AssertionError(f"something is written to {folder} again and again: {list(folder.rglob('*'))}")
