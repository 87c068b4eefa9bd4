"""`python -m launcher` is the command `sft`."""

import os
import signal
import sys
from contextlib import suppress
from types import FrameType

from launcher.exit_codes import ENDED, INTERRUPTED, INTERRUPTION, code_of_signal


def main() -> int:
    """Run it. What it imports and reads first takes a moment, in which a signal ends it at once.

    Nothing is begun then. An exception would not do: Python drops one that is raised in a callback of an import lock,
    and makes another of one that is raised while a dataclass is made.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        if signal.getsignal(number) != signal.SIG_IGN:  # as shells have it for what runs in the background
            signal.signal(number, _end_at_once)
    try:
        from launcher.cli import main as run  # noqa: PLC0415  (see above)

        return run()
    finally:
        # Python ends by Ctrl-C's signal, not with our code, where an interrupt has left a code string, as those that
        # dataclasses are made of, even if it was caught. The next code string makes it forget that.
        exec("")


def _end_at_once(number: int, frame: FrameType | None) -> None:
    is_interrupt = number == signal.SIGINT
    words = INTERRUPTION if is_interrupt else ENDED.format(signal.Signals(number).name) + "\n"
    with suppress(OSError):
        os.write(2, words.encode())
    os._exit(INTERRUPTED if is_interrupt else code_of_signal(number))


if __name__ == "__main__":
    sys.exit(main())
