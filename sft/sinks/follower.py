"""Follows a run's files for one sink until the training has ended and nothing is new."""

import threading
import time
from collections.abc import Callable, Sequence

from sft.sinks.run_reader import RunReader
from sft.sinks.sink import Point, Sink

_PAUSE_SECONDS = 2.0
_TRY_AGAIN_SECONDS = (5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 285.0)
"""Ten minutes in all: servers restart within that time."""


def follow(
    reader: RunReader,
    sink: Sink,
    keep: Callable[[], None],
    beat: Callable[[], None],
    ended: threading.Event,
    pauses: Sequence[float] = _TRY_AGAIN_SECONDS,
) -> None:
    """Send what is new until the end.

    Args:
        reader: reads the run.
        sink: takes the points.
        keep: called when the sink has everything that was read: the reader's state may be recorded.
        beat: called regularly, to show that the process is alive.
        ended: set when nothing more will be written to the run.
        pauses: seconds between tries when the sink fails.

    Raises:
        Exception: the sink's, if all tries failed, or if one failed after the end.
    """
    while True:
        is_last = ended.is_set()
        beat()
        points = _read(reader)
        if points:
            _add(sink, points, beat, ended, pauses)
            keep()
        elif is_last:
            return
        else:
            ended.wait(_PAUSE_SECONDS)


def _read(reader: RunReader) -> list[Point]:
    try:
        return reader.read()
    except OSError:  # the file system is away for a moment, or the run folder was removed
        return []


def _add(
    sink: Sink, points: Sequence[Point], beat: Callable[[], None], ended: threading.Event, pauses: Sequence[float]
) -> None:
    for pause in (*pauses, None):
        try:
            sink.add(points)
            return
        except Exception:  # a third party's package may raise anything
            if pause is None or ended.is_set():
                raise
        until = time.monotonic() + pause
        while (left := until - time.monotonic()) > 0 and not ended.wait(min(left, _PAUSE_SECONDS)):
            beat()
