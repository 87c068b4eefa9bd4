"""Output that cannot be written: the disk of a log is full, a stream is closed, nobody reads a pipe any more.

By itself Python raises such an error wherever something is printed, and once more at its end. Here it is decided what
comes of it. A command ends with a sentence; a training goes on without its output, as all of it is in the run folder,
too. What is printed to stderr ends nothing.
"""

import errno
import io
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

_NAMES = {1: "standard output", 2: "standard error"}


class OutputError(Exception):
    """Standard output cannot be written. It is raised once, in the main thread; what is printed after it is lost."""

    def __init__(self, error: OSError) -> None:
        super().__init__(_in_words(1, error))
        self.is_gone = isinstance(error, BrokenPipeError)
        """Whether it is a pipe that nobody reads any more."""


class _Policy:
    """What comes of an error, now."""

    goes_on = False
    on_gone: Callable[[], None] | None = None


_policy = _Policy()


class _Raw(io.RawIOBase):
    """A descriptor that takes everything. What it cannot write is lost."""

    def __init__(self, descriptor: int, is_closed: bool) -> None:
        self.descriptor, self.is_closed = descriptor, is_closed
        self.other: _Raw | None = None
        self._error: OSError | None = None
        self._is_settled = False

    def writable(self) -> bool:
        """Always."""
        return True

    def fileno(self) -> int:
        """Of a closed stream, that of nowhere."""
        return self.descriptor

    def isatty(self) -> bool:
        """Whether a person looks at it."""
        return not self.is_closed and os.isatty(self.descriptor)

    def write(self, content: Any) -> int | None:
        """All of it, as far as whoever writes can see."""
        num_bytes = memoryview(content).nbytes
        if isinstance(self._error, BrokenPipeError) or (self._error and not _policy.goes_on):
            self._settle(self._error)
            return num_bytes
        try:
            return os.write(-1 if self.is_closed else self.descriptor, content)  # a full disk may have room again
        except BlockingIOError:
            return None
        except OSError as error:
            self._error = error
            self._settle(error)
            return num_bytes

    def _settle(self, error: OSError) -> None:
        """What comes of it comes once."""
        if self._is_settled:
            return
        if _policy.goes_on and not isinstance(error, BrokenPipeError):
            self._is_settled = True
            self._tell(error)
        elif self.descriptor == 1 and isinstance(error, BrokenPipeError) and _policy.on_gone is not None:
            self._is_settled = True
            _policy.on_gone()
        elif self.descriptor == 1 and threading.current_thread() is threading.main_thread():
            self._is_settled = True
            raise OutputError(error)

    def _tell(self, error: OSError) -> None:
        """On the other stream; by its descriptor, as its own buffer may be in use."""
        if self.other is not None and not self.other.is_closed:
            text = f"{_in_words(self.descriptor, error)}. The training goes on; what cannot be printed is lost.\n"
            with suppress(OSError):
                os.write(self.other.descriptor, text.encode())


@contextmanager
def output_guarded() -> Iterator[None]:
    """While it is open, errors of stdout and stderr are as told above. Closed streams are opened, to nowhere.

    Raises:
        OutputError: from where something is printed.
    """
    before = sys.stdout, sys.stderr
    raws = [_raw(stream, descriptor) for descriptor, stream in enumerate(before, start=1)]
    if raws[0] and raws[1]:
        raws[0].other, raws[1].other = raws[1], raws[0]
    guarded = [_over(raw, stream) if raw else stream for raw, stream in zip(raws, before, strict=True)]
    sys.stdout, sys.stderr = guarded
    try:
        yield
    finally:
        for raw, stream in zip(raws, guarded, strict=True):
            if raw:
                stream.flush()
        sys.stdout, sys.stderr = before


@contextmanager
def going_on_without_output(on_gone: Callable[[], None] | None = None) -> Iterator[None]:
    """While it is open, output that cannot be written ends nothing; of a pipe that nobody reads, `on_gone` is called.

    Without it, such a pipe still ends what the main thread does.
    """
    before = _policy.goes_on, _policy.on_gone
    _policy.goes_on, _policy.on_gone = True, on_gone or before[1]
    try:
        yield
    finally:
        _policy.goes_on, _policy.on_gone = before


def _raw(stream: TextIO | None, descriptor: int) -> _Raw | None:
    """What takes the place of the stream's own; None where it has another, as a test's."""
    if stream is None:
        _occupy(descriptor)
        return _Raw(descriptor, is_closed=True)
    is_own = type(stream) is io.TextIOWrapper and isinstance(getattr(stream.buffer, "raw", stream.buffer), io.FileIO)
    return _Raw(descriptor, is_closed=False) if is_own and stream.fileno() == descriptor else None


def _occupy(descriptor: int) -> None:
    """Else the next file that is opened gets the number, and what others print there."""
    with suppress(OSError):
        os.fstat(descriptor)
        return
    while os.open(os.devnull, os.O_RDWR) < descriptor:
        pass


def _over(raw: _Raw, stream: TextIO | None) -> TextIO:
    buffer = io.BufferedWriter(raw)
    if stream is None:
        return io.TextIOWrapper(buffer, encoding="utf-8", errors="backslashreplace", line_buffering=True)
    is_by_line = stream.line_buffering or getattr(stream, "write_through", False)
    return io.TextIOWrapper(buffer, encoding=stream.encoding, errors=stream.errors, line_buffering=bool(is_by_line))


def _in_words(descriptor: int, error: OSError) -> str:
    why = "it is closed" if error.errno == errno.EBADF else error.strerror
    return f"{_NAMES[descriptor]} cannot be written: {why}"
