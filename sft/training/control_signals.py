"""What is asked of a run from outside. The loop looks between two steps; the first rank's answer counts for all.

To stop: a signal, or the file `STOP` in the run folder. To save: a node will be taken away. To resize: there is room
for more workers.
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
"""Of those who want a machine back."""

_BY_SIGNAL = 0.0
"""The time of a stop file that a signal has made (Unix time): it can be written where there is no room for a byte."""


def request_stop(stop_file: Path) -> None:
    """Ask for a stop of this start alone, by a stop file that says so; a person's is left as it is."""
    with suppress(FileExistsError):
        stop_file.touch(exist_ok=False)
        os.utime(stop_file, (_BY_SIGNAL, _BY_SIGNAL))


def remove_stale_stop(stop_file: Path, now: float, say: Callable[[str], None]) -> None:
    """Take away a stop file that does not mean this start of the run.

    One that means it is newer than this process. Of a job that is queued again after its nodes were taken, each start
    goes on with the same job: there a person's file counts until it is obeyed.

    Args:
        stop_file: the file, which may be there.
        now: by the clock of its file system.
        say: called with a message where a person's file is taken away.
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
        say(f"{stop_file} is older than this start, and removed.")


class ControlSignals:
    """Looks for them. Whoever starts the ranks knows the cluster, and passes what it knows."""

    def __init__(
        self,
        stop_file: Path,
        has_notice: Callable[[], bool] = lambda: False,
        has_room: Callable[[], bool] = lambda: False,
    ) -> None:
        """`stop_file` asks for a stop by being there; `has_notice` says whether a node has just been given notice,
        `has_room` whether more workers would find a place."""
        self._stop_file = stop_file
        self._has_notice = has_notice
        self._has_room = has_room
        self._signalled = False

    def listen(self) -> None:
        """Let SIGTERM and SIGUSR1 ask for a stop. A second one has its usual effect. In the main thread only."""
        for number in SIGNALS:
            signal.signal(number, self._on_signal)

    def stop_requested(self) -> bool:
        """Whether to stop after the step under way."""
        return self._signalled or self._stop_file.exists()

    def save_requested(self) -> bool:
        """Whether to save a checkpoint after the step under way, whenever the next one is due."""
        return self._has_notice()

    def resize_requested(self) -> bool:
        """Whether to begin again, from the checkpoint that is saved now, with more workers."""
        return self._has_room()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._signalled = True
        signal.signal(number, signal.SIG_DFL)
