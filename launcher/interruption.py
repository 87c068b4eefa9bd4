"""What ends `sft train` while no rank trains: SIGTERM, SIGUSR1, or the file STOP. It ends at once, as nothing is lost.

While ranks train, the same ask for a stop with a checkpoint (`launcher.cluster.signals_ask_to_stop`).
"""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

_LOOK_SECONDS = 1.0


class InterruptedByWish(Exception):
    """`number` is the signal's; None: the stop file is there."""

    def __init__(self, number: int | None) -> None:
        super().__init__("STOP" if number is None else signal.Signals(number).name)
        self.number = number


@contextmanager
def ended_on_wish(stop_file: Path) -> Iterator[None]:
    """Interrupt what the main thread does in here as Ctrl-C would, when it is wished. Enter it in the main thread.

    Raises:
        InterruptedByWish: when all that is in here has been left in order.
    """
    wishes: list[int | None] = []
    over = threading.Event()

    def interrupt(number: int, frame: FrameType | None) -> None:
        wishes.append(number)
        # Not an exception of our own: Ray's calls give way to this one.
        raise KeyboardInterrupt

    def look() -> None:
        # While ranks train the handler is another, and they look for the file themselves.
        while signal.getsignal(signal.SIGTERM) is not interrupt or not stop_file.exists():
            if over.wait(_LOOK_SECONDS):
                return
        wishes.append(None)
        os.kill(os.getpid(), signal.SIGTERM)

    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)}
    looking = threading.Thread(target=look, name="stop-file", daemon=True)
    try:
        for number in before:
            signal.signal(number, interrupt)
        looking.start()
        yield
    except KeyboardInterrupt:
        if not wishes:
            raise
        raise InterruptedByWish(wishes[0]) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        over.set()
        if looking.is_alive():
            looking.join()
