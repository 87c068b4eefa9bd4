"""Requests to a run from outside. The loop looks for them between two steps; the first rank's answer counts for all.

Stop: a signal, or the file `STOP` in the run folder. Save: a node will be taken away. Resize: there is room for more
workers.
"""

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import FrameType

import sft
from sft.queued_job import queued_job

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
"""Signals from schedulers that want a machine back."""

_BY_SIGNAL = 0.0
"""The time of a stop file that a signal made (Unix time): a time can be set even on a full disk."""


def request_stop(stop_file: Path) -> None:
    """Ask for a stop of this start only, by a stop file that says so; a user's stop file stays as it is."""
    with suppress(FileExistsError):
        stop_file.touch(exist_ok=False)
        os.utime(stop_file, (_BY_SIGNAL, _BY_SIGNAL))


def remove_stale_stop(stop_file: Path, now: float, say: Callable[[str], None]) -> None:
    """Remove a stop file that is not meant for this start of the run.

    A file that is meant for it is newer than this process. All starts of a requeued job belong to the same job: there a
    user's file counts until it is obeyed.

    Args:
        stop_file: the file, which may be there.
        now: the time by the clock of its file system.
        say: called with a message if a user's file is removed.
    """
    try:
        made_at = stop_file.stat().st_mtime
    except FileNotFoundError:
        return
    started_at = now - (time.monotonic() - sft.STARTED)
    if made_at != _BY_SIGNAL and (queued_job() is not None or made_at >= started_at):
        return
    stop_file.unlink(missing_ok=True)
    if made_at != _BY_SIGNAL:
        say(f"{stop_file} is older than this start, and was removed.")


class ControlSignals:
    """Looks for requests. The code that starts the ranks knows the cluster, and passes the functions that ask it."""

    def __init__(
        self,
        stop_file: Path,
        has_notice: Callable[[], bool] = lambda: False,
        has_room: Callable[[], bool] = lambda: False,
    ) -> None:
        """`stop_file` asks for a stop while it exists; `has_notice` says whether a node has just been given notice,
        `has_room` whether there is room for more workers."""
        self._stop_file = stop_file
        self._has_notice = has_notice
        self._has_room = has_room
        self._signalled = False

    def listen(self) -> None:
        """Let SIGTERM and SIGUSR1 ask for a stop; a second one has its usual effect. Only in the main thread."""
        for number in SIGNALS:
            signal.signal(number, self._on_signal)

    def stop_requested(self) -> bool:
        """Whether to stop after the step under way."""
        return self._signalled or self._stop_file.exists()

    def save_requested(self) -> bool:
        """Whether to save a checkpoint after the step under way, regardless of when the next one is due."""
        return self._has_notice()

    def resize_requested(self) -> bool:
        """Whether to restart with more workers, from the checkpoint that is saved now."""
        return self._has_room()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._signalled = True
        signal.signal(number, signal.SIG_DFL)
