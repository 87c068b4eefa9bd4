"""What is wished of a run from outside; the loop acts on it between two steps, by the first rank's answer.

To stop: by a signal, or by a file `STOP` in the run folder. To save: because a node will be taken away. To grow:
because there is room for more workers.
"""

import signal
from collections.abc import Callable
from pathlib import Path
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


class Wishes:
    """Asks for them; whoever starts the ranks knows the cluster, and passes what it knows."""

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
        """Take SIGTERM and SIGUSR1 as a wish to stop. A second one has its usual effect. In the main thread only."""
        for number in SIGNALS:
            signal.signal(number, self._on_signal)

    def to_stop(self) -> bool:
        """Whether to stop after the step under way."""
        return self._signalled or self._stop_file.exists()

    def to_save(self) -> bool:
        """Whether to save a checkpoint after the step under way, whenever the next one is due."""
        return self._has_notice()

    def to_grow(self) -> bool:
        """Whether to begin again, from the checkpoint that is saved now, with more workers."""
        return self._has_room()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._signalled = True
        signal.signal(number, signal.SIG_DFL)
