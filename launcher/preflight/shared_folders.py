"""Whether the driver and the nodes see the same folder: each leaves a mark there that the other looks for.

The same path on two local disks looks alike from everywhere, but the other's mark is not there.
"""

import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import fsspec

from sft.url_secrets import without_secrets

_SEEN_WITHIN_SECONDS = 3.0
"""A network file system may show a new file a little later on another machine."""

DRIVER_MARK = "driver"


class SharedFolder(NamedTuple):
    """A folder, or a URL that fsspec knows. `field`: what the config calls it."""

    field: str
    location: str
    nodes_write: bool


class FolderAnswer(NamedTuple):
    """A node's answer. `problem`: why it cannot use the folder; `mark`: the name of the mark that it left there."""

    problem: str | None
    mark: str | None = None


def mark_name(word: str, who: str) -> str:
    """The file name of the mark; each check has another `word`."""
    return f".preflight-{word}-{who}"


def leave_mark(location: str, name: str) -> None:
    """Write a mark.

    Raises:
        OSError: the folder is not there or cannot be written; the text says why.
    """
    with _as_os_errors():
        files, root = fsspec.url_to_fs(location)
        files.pipe_file(f"{root.rstrip('/')}/{name}", name.encode())


def sees_mark(location: str, name: str, within_seconds: float = _SEEN_WITHIN_SECONDS) -> bool:
    """Whether the mark is there, at the latest after some seconds.

    Raises:
        OSError: the folder cannot be read; the text says why.
    """
    deadline = time.monotonic() + within_seconds
    with _as_os_errors():
        files, root = fsspec.url_to_fs(location)
        while True:
            files.invalidate_cache()
            with suppress(FileNotFoundError):
                return bool(files.cat_file(f"{root.rstrip('/')}/{name}") == name.encode())
            if time.monotonic() > deadline:
                return False
            time.sleep(0.1)


def remove_mark(location: str, name: str) -> None:
    """Remove a mark, if it is there."""
    with suppress(OSError), _as_os_errors():
        files, root = fsspec.url_to_fs(location)
        files.rm_file(f"{root.rstrip('/')}/{name}")


@contextmanager
def marked(folders: Iterable[SharedFolder], word: str) -> Iterator[dict[str, str]]:
    """While open, the driver's mark is in each folder; yields field → why the mark cannot be put there.

    Local folders that do not exist are made for that time.
    """
    problems = {}
    with ExitStack() as stack:
        for folder in folders:
            try:
                if "://" not in folder.location:
                    stack.enter_context(_made(Path(folder.location)))
                leave_mark(folder.location, mark_name(word, DRIVER_MARK))
            except OSError as error:
                problems[folder.field] = f"cannot be written: {reason_of(error)}"
            else:
                stack.callback(remove_mark, folder.location, mark_name(word, DRIVER_MARK))
        yield problems


def answer_on_node(folder: SharedFolder, word: str, who: str) -> FolderAnswer:
    """Look for the driver's mark and leave one, on a node."""
    try:
        if not sees_mark(folder.location, mark_name(word, DRIVER_MARK)):
            if "://" not in folder.location and not Path(folder.location).is_dir():
                return FolderAnswer("is not there")
            return FolderAnswer("is not the driver's folder: the node does not see what the driver writes")
        if not folder.nodes_write:
            return FolderAnswer(None)
        leave_mark(folder.location, mark_name(word, who))
    except OSError as error:
        return FolderAnswer(f"cannot be used: {reason_of(error)}")
    return FolderAnswer(None, mark_name(word, who))


def reason_of(error: OSError) -> str:
    """Why a folder cannot be used, without the secrets of its URL."""
    return without_secrets(" ".join((error.strerror or str(error)).split()))[:300] or type(error).__name__


@contextmanager
def _made(folder: Path) -> Iterator[None]:
    new = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    finally:
        for path in new:
            with suppress(OSError):  # others may have put something there meanwhile
                path.rmdir()


@contextmanager
def _as_os_errors() -> Iterator[None]:
    """File systems of fsspec raise the errors of their own libraries."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        raise OSError(str(error) or type(error).__name__) from error
