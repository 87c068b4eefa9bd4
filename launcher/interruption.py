"""How `sft train` obeys signals and the file STOP: with a checkpoint while ranks train, otherwise at once.

Before ranks train, and afterwards, ending at once loses nothing. `ended_on_request` is open all the time.
`signals_ask_to_stop` is open inside it while ranks train; the ranks look for the file themselves.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

from launcher.exit_codes import ENDED, STOPPED, code_of_signal
from sft.guarded_output import going_on_without_output
from sft.training.control_signals import SIGNALS, request_stop

STOP_SIGNALS = (*SIGNALS, signal.SIGINT)
"""Only the driver obeys them. Schedulers may send them to all processes of a job."""

_LOOK_SECONDS = 1.0
_AGAIN_SECONDS = 0.05

Handler = Callable[[int, FrameType | None], None]


class EndRequested(Exception):
    """`number` is the signal's; None: the stop file is there."""

    def __init__(self, number: int | None) -> None:
        super().__init__("STOP" if number is None else signal.Signals(number).name)
        self.number = number
        self.exit_code = STOPPED if number is None else code_of_signal(number)
        self.in_words = ENDED.format(self)


@contextmanager
def ended_on_request(stop_file: Path | None = None) -> Iterator[None]:
    """Interrupt the main thread in this block as Ctrl-C would, when an end is asked for. Enter it in the main thread.

    Args:
        stop_file: None where only signals count.

    Raises:
        EndRequested: raised after the block was left in order.
        KeyboardInterrupt: so it was by Ctrl-C.
    """
    requests: list[int | None] = []
    over = threading.Event()

    def interrupt(number: int, frame: FrameType | None) -> None:
        requests.append(number)
        # Not an exception of our own: this one also interrupts Ray's calls.
        raise KeyboardInterrupt

    def look(stop_file: Path) -> None:
        # While ranks train, another handler is installed.
        while signal.getsignal(signal.SIGTERM) is not interrupt or not stop_file.exists():
            if over.wait(_LOOK_SECONDS):
                return
        requests.append(None)
        os.kill(os.getpid(), signal.SIGTERM)

    looking = threading.Thread(target=look, args=(stop_file,), name="stop-file", daemon=True)
    try:
        with _taken_by(interrupt, SIGNALS), _ctrl_c_interrupts(), _no_interrupt_is_lost(requests):
            if stop_file is not None:
                looking.start()
            try:
                yield
            finally:
                over.set()
                if stop_file is not None:
                    looking.join()
    except BaseException as error:
        if not _is_interrupt(error):
            raise
        raise EndRequested(requests[0]) if requests else KeyboardInterrupt from None


def _is_interrupt(error: BaseException | None) -> bool:
    """An interrupt, or what has been made of one, as Python does while a dataclass is made."""
    return error is not None and (isinstance(error, KeyboardInterrupt) or _is_interrupt(error.__cause__))


@contextmanager
def _ctrl_c_interrupts() -> Iterator[None]:
    # Shells ignore it for what runs in the background.
    is_ignored = signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    with _taken_by(signal.default_int_handler, () if is_ignored else (signal.SIGINT,)):
        yield


@contextmanager
def _no_interrupt_is_lost(requests: Sequence[int | None]) -> Iterator[None]:
    """Interrupt again where Python drops an interrupt: in a finalizer, or a callback, as those of its import locks.

    Args:
        requests: those until now; Ctrl-C is none.
    """
    before = sys.unraisablehook

    def again(dropped: "sys.UnraisableHookArgs") -> None:
        if issubclass(dropped.exc_type, KeyboardInterrupt):
            # Not here: it would be dropped again.
            number = signal.SIGTERM if requests else signal.SIGINT
            threading.Timer(_AGAIN_SECONDS, os.kill, (os.getpid(), number)).start()
        else:
            before(dropped)

    sys.unraisablehook = again
    try:
        yield
    finally:
        sys.unraisablehook = before


@contextmanager
def signals_ask_to_stop(stop_file: Path) -> Iterator[None]:
    """SIGTERM, SIGUSR1 and Ctrl-C ask for a stop with a checkpoint, by the stop file; a second one ends the process.

    So does the end of whoever reads what is printed, by a pipe. A file that a person has made stays as it is.
    """

    def ask(number: int, frame: FrameType | None) -> None:
        try:
            request_stop(stop_file)
        except OSError as error:
            sys.stderr.write(f"{stop_file} cannot be made: {error.strerror}. The training is not asked to stop.\n")
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
    """Ignore stop signals in a process that speaks to Ray: the process that started it obeys them. Ray's own handlers
    would end this process."""
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
