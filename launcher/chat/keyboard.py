"""Reads what the user types, or what a pipe holds, and tells an interruption of an answer from the end of the chat.

SIGTERM interrupts as Ctrl-C would (`launcher.interruption`). Ctrl-C itself is taken here while a person types, so what
arrives as KeyboardInterrupt is meant for the whole command.
"""

import os
import signal
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from types import FrameType

from launcher.exit_codes import INTERRUPTED

PROMPT, MORE = "> ", "  "
_IMPATIENT_SECONDS = 1.0
"""A second Ctrl-C this long after the first, while the answer has not ended, ends the chat."""


class GivenUpError(Exception):
    """Ctrl-C: of a person while a line is typed, of a program at any time."""


class Keyboard:
    """Lines of a person at a terminal, or of a program. Open it before the first line."""

    def __init__(self) -> None:
        self._is_reading = False
        """Whether Ctrl-C gives up what goes on."""
        self._interrupted_at: float | None = None
        self.is_person = _is_terminal(sys.stdin) and _is_terminal(sys.stdout)
        """Whether somebody types, and looks at the answers."""

    @contextmanager
    def opened(self) -> Iterator[None]:
        """While it is open, Ctrl-C of a person ends lines and answers only.

        Raises:
            GivenUpError: Ctrl-C, where no person types.
        """
        if hasattr(sys.stdin, "reconfigure"):
            # Else a byte that is no UTF-8 would end the command; such a line is refused as any other that is no text.
            sys.stdin.reconfigure(errors="surrogateescape")
        self._is_reading = not self.is_person
        if self.is_person:
            with suppress(ImportError):  # Python may come without it
                # Lines that are pasted together are one question.
                import_module("readline").parse_and_bind("set enable-bracketed-paste on")
        before = signal.signal(signal.SIGINT, self._interrupt)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)
            self._echo(True)

    def text(self) -> str | None:
        """The next text: a line, and those behind it where it ends in a backslash. None at the end."""
        lines: list[str] = []
        while True:
            try:
                line = self._line(MORE if lines else PROMPT)
            except GivenUpError:
                if not self.is_person:
                    raise
                sys.stdout.write("\n")
                return ""
            if line is None:
                return "\n".join(lines) if lines else None
            if not line.endswith("\\"):
                return "\n".join([*lines, line])
            lines.append(line[:-1])

    def stopped(self) -> bool:
        """Whether Ctrl-C was pressed since the last line."""
        return self._interrupted_at is not None

    def _line(self, prompt: str) -> str | None:
        if not self.is_person:
            line = sys.stdin.readline() if sys.stdin is not None else ""
            return line.removesuffix("\n").removesuffix("\r") if line else None
        self._echo(True)
        self._interrupted_at, self._is_reading = None, True
        try:
            return input(prompt)
        except EOFError:
            sys.stdout.write("\n")
            return None
        finally:
            self._is_reading = False
            self._echo(False)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        if self._is_reading:
            raise GivenUpError
        now = time.monotonic()
        if self._interrupted_at is None:
            self._interrupted_at = now
        elif now - self._interrupted_at > _IMPATIENT_SECONDS:
            # The thread that computes cannot be ended: a long prompt may take minutes.
            self._echo(True)
            os.write(1, b"\n")
            os._exit(INTERRUPTED)

    def _echo(self, is_on: bool) -> None:
        """Whether the terminal shows keys. While an answer is written, they would stand in it; they wait."""
        if not self.is_person:
            return
        with suppress(termios.error):  # the terminal is gone
            settings = termios.tcgetattr(sys.stdin.fileno())
            settings[3] = settings[3] | termios.ECHO if is_on else settings[3] & ~termios.ECHO
            termios.tcsetattr(sys.stdin.fileno(), termios.TCSADRAIN, settings)


def _is_terminal(stream: object) -> bool:
    return stream is not None and bool(getattr(stream, "isatty", lambda: False)())
