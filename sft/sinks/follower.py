"""Follows a run's files for one sink until the training has ended and nothing is new."""

import threading
import time
from collections.abc import Callable, Sequence

from sft.sinks.run_reader import RunReader
from sft.sinks.sink import Point, Sink

_PAUSE_SECONDS = 2.0
_TRY_AGAIN_SECONDS = (5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 285.0)
"""Ten minutes: servers are restarted within them."""


def follow(
    reader: RunReader,
    sink: Sink,
    keep: Callable[[], None],
    beat: Callable[[], None],
    ended: threading.Event,
    pauses: Sequence[float] = _TRY_AGAIN_SECONDS,
) -> None:
    """Send what is new, again and again.

    Args:
        reader: of the run.
        sink: takes the points.
        keep: called when the sink has all that was read: the reader's state may be written down.
        beat: called now and then by one that lives.
        ended: set when nothing more will be written to the run.
        pauses: between tries where the sink fails.

    Raises:
        Exception: the sink's, when all tries have failed, or one has after the end.
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
    except OSError:  # a file system that is away for a moment, or a run folder that somebody has removed
        return []


def _add(
    sink: Sink, points: Sequence[Point], beat: Callable[[], None], ended: threading.Event, pauses: Sequence[float]
) -> None:
    for pause in (*pauses, None):
        try:
            sink.add(points)
            return
        except Exception:  # a package of others may raise anything
            if pause is None or ended.is_set():
                raise
        until = time.monotonic() + pause
        while (left := until - time.monotonic()) > 0 and not ended.wait(min(left, _PAUSE_SECONDS)):
            beat()
