"""A wish to stop, from a signal or from a file `STOP` in the run folder; the loop acts on it between two steps."""

import signal
from pathlib import Path
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


class StopRequest:
    """Whether somebody asked this process to stop. Only the first rank's answer counts (see the loop)."""

    def __init__(self, file: Path) -> None:
        """`file` asks for a stop by being there."""
        self._file = file
        self._signalled = False

    def listen(self) -> None:
        """Take SIGTERM and SIGUSR1 as a request. A second one has its usual effect. In the main thread only."""
        for number in SIGNALS:
            signal.signal(number, self._on_signal)

    def is_made(self) -> bool:
        """Whether to stop after the step under way."""
        return self._signalled or self._file.exists()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._signalled = True
        signal.signal(number, signal.SIG_DFL)
