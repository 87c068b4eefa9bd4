"""Turns a URL into fsspec's file system, or says why it cannot be used; raises Python's own kinds of errors.

Lasting problems (no such bucket, missing or refused keys) are reported before anything is trained. A failing network is
left to the retries of each operation.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import fsspec
from fsspec.callbacks import Callback
from fsspec.registry import known_implementations

from sft.errors import UserError
from sft.progress import Tell
from sft.url_secrets import without_secrets


def open_file_system(url: str) -> tuple[Any, str]:
    """fsspec's file system, and the path of the URL in it; checks that it can be read, and writes nothing.

    Raises:
        UserError: fsspec does not know the protocol, lacks a package for it, or cannot use the URL; there is no such
            bucket, there are no keys, or they are refused.
    """
    shown = without_secrets(url)
    try:
        files, path = fsspec.url_to_fs(url)
    except ImportError as error:
        protocol = url.partition("://")[0].rpartition("::")[2]
        package = known_implementations[protocol]["class"].partition(".")[0]
        raise UserError(
            f"checkpoint.dir: {shown} needs a package that is not installed ({without_secrets(str(error))}). "
            f"Install it on all machines with `pip install {package}`, or give a folder that all machines see."
        ) from None
    except (ValueError, OSError) as error:
        raise UserError(
            f"checkpoint.dir: {shown} cannot be used: {without_secrets(str(error))}. Give a URL that fsspec knows, "
            "such as s3://bucket/run, or a folder that all machines see."
        ) from None
    root = str(path).rstrip("/")
    if problem := _find_problem(files, root):
        raise UserError(
            f"checkpoint.dir: {shown} cannot be used: {problem}. Correct the URL, or the keys and the endpoint that "
            "are set on this machine."
        )
    return files, root


class Moved(Callback):  # type: ignore[misc]  # fsspec has no types
    """Reports each part of a file that fsspec has uploaded or downloaded."""

    def __init__(self, tell: Tell) -> None:
        """`tell` may be called from threads."""
        super().__init__()
        self._tell = tell

    def relative_update(self, inc: int = 1) -> None:
        """Called after this many more bytes were moved."""
        self._tell()

    def absolute_update(self, value: int) -> None:
        """Called with the bytes that were moved so far."""
        self._tell()


@contextmanager
def os_errors(shown: str) -> Iterator[None]:
    """Turns every error inside into an `OSError` with the URL in its text; a missing object is a `FileNotFoundError`.

    Raises:
        OSError: or the subclass that fits.
    """
    try:
        yield
    except Exception as error:
        kind = _kind_of(error)
        text = without_secrets(str(error) if isinstance(error, kind) else f"{type(error).__name__}: {error}")
        raise kind(f"{shown}: {text}") from error


def _find_problem(files: Any, root: str) -> str | None:
    """A lasting problem, in words; None if there is none, or if it may be the network."""
    try:
        files.invalidate_cache()
        files.ls(root, detail=False)
    except FileNotFoundError:
        bucket = root.partition("/")[0]
        return f"there is no bucket {without_secrets(bucket)}" if _is_missing(files, bucket) else None
    except Exception as error:
        kind = _kind_of(error)
        is_for_good = kind is PermissionError or (kind is OSError and not isinstance(error, OSError))
        return without_secrets(f"{type(error).__name__}: {error}") if is_for_good else None
    return None


def _is_missing(files: Any, bucket: str) -> bool:
    """Whether the bucket certainly does not exist. A path that begins with a slash has folders, not a bucket."""
    try:
        if bucket:
            files.info(bucket)
    except FileNotFoundError:
        return True
    except Exception:
        # Keys for a part of a bucket may not be allowed to look at the whole bucket.
        return False
    return False


def _kind_of(error: BaseException) -> type[OSError]:
    """Which of Python's own errors this is. Each package has its own errors for a failing network."""
    for kind in (FileNotFoundError, PermissionError, ConnectionError, TimeoutError):
        if isinstance(error, kind):
            return kind
    behind = error.__cause__ or error.__context__
    while behind is not None:
        if isinstance(behind, OSError):
            return ConnectionError
        behind = behind.__cause__ or behind.__context__
    return OSError
