"""How `sft train` obeys signals and the file STOP: while ranks train by a stop with a checkpoint, else at once.

Before ranks train, and behind them, nothing is lost by an end at once. `ended_on_request` is open all the time;
`signals_ask_to_stop` is open inside of it while ranks train, who look for the file themselves.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

from launcher.exit_codes import STOPPED
from sft.guarded_output import going_on_without_output
from sft.training.control_signals import SIGNALS, request_stop

STOP_SIGNALS = (*SIGNALS, signal.SIGINT)
"""They are the driver's: who runs it may send them to all of its processes."""

_LOOK_SECONDS = 1.0

Handler = Callable[[int, FrameType | None], None]


class EndRequested(Exception):
    """`number` is the signal's; None: the stop file is there."""

    def __init__(self, number: int | None) -> None:
        super().__init__("STOP" if number is None else signal.Signals(number).name)
        self.number = number
        # Of a signal it is what shells give to one who was killed by it.
        self.exit_code = STOPPED if number is None else 128 + number


@contextmanager
def ended_on_request(stop_file: Path | None) -> Iterator[None]:
    """Interrupt what the main thread does in here as Ctrl-C would, when it is asked for. Enter it in the main thread.

    Args:
        stop_file: None where only signals count.

    Raises:
        EndRequested: when all that is in here has been left in order.
    """
    requests: list[int | None] = []
    over = threading.Event()

    def interrupt(number: int, frame: FrameType | None) -> None:
        requests.append(number)
        # Not an exception of our own: Ray's calls give way to this one.
        raise KeyboardInterrupt

    def look() -> None:
        # While ranks train the handler is another.
        while signal.getsignal(signal.SIGTERM) is not interrupt or stop_file is None or not stop_file.exists():
            if over.wait(_LOOK_SECONDS):
                return
        requests.append(None)
        os.kill(os.getpid(), signal.SIGTERM)

    looking = threading.Thread(target=look, name="stop-file", daemon=True)
    try:
        with _taken_by(interrupt, SIGNALS):
            looking.start()
            try:
                yield
            finally:
                over.set()
                looking.join()
    except KeyboardInterrupt:
        if not requests:
            raise
        raise EndRequested(requests[0]) from None


@contextmanager
def signals_ask_to_stop(stop_file: Path) -> Iterator[None]:
    """SIGTERM, SIGUSR1 and Ctrl-C ask for a stop with a checkpoint, by the stop file; a second one ends the process.

    So does the end of whoever reads what is printed, by a pipe. A file that a person has made stays as it is.
    """

    def ask(number: int, frame: FrameType | None) -> None:
        try:
            request_stop(stop_file)
        except OSError as error:
            sys.stderr.write(f"{stop_file} cannot be made: {error.strerror}. Nobody is asked to stop.\n")
            return
        sys.stderr.write("stopping after this step, with a checkpoint; the same command goes on\n")
        for other in STOP_SIGNALS:
            signal.signal(other, signal.default_int_handler if other == signal.SIGINT else signal.SIG_DFL)

    def ask_in_silence() -> None:
        with suppress(OSError):
            request_stop(stop_file)

    with _taken_by(ask, STOP_SIGNALS), going_on_without_output(ask_in_silence):
        yield


def pass_signals_by() -> None:
    """In a process that speaks to Ray: who has started it is asked to stop. Ray has handlers of its own, and would end
    this process."""
    for number in STOP_SIGNALS:
        signal.signal(number, lambda number, frame: None)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)


@contextmanager
def _taken_by(handler: Handler, numbers: Iterable[int]) -> Iterator[None]:
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, handler_before in before.items():
            signal.signal(number, handler_before)
