"""Which records are open in which window, so that no two people work on the same one.

It is a small file beside the decisions, which servers of several reviewers share. A window says now and then that it is
still there. A window that is closed gives its record back; one that is silent has it for three minutes more.
"""

import json
import time
from collections.abc import Callable, Container
from pathlib import Path

from sft.approval.decisions import locked
from sft.atomic_files import write_bytes

_SILENT_SECONDS = 180.0
"""Browsers let a page in the background act once a minute."""


class GivenOut:
    """The open records of all windows, of all servers."""

    def __init__(self, decisions: Path, now: Callable[[], float] = time.time) -> None:
        """`decisions`: the file beside which it lies, and whose lock holds for it."""
        self._lock = decisions
        self._path = decisions.with_name(f".{decisions.name}.open")
        self._now = now

    def give(self, window: str, choose: Callable[[Container[str]], str | None]) -> str | None:
        """Give a window a record; it gives back what it had.

        Args:
            window: its name, which no other window has.
            choose: what others have open → the record that this one gets; None: nothing.
        """
        with locked(self._lock):
            held = {other: one for other, one in self._read().items() if other != window}
            record = choose({one[0] for one in held.values()})
            if record is not None:
                held[window] = (record, self._now())
            write_bytes(self._path, json.dumps(held).encode())
        return record

    def renew(self, window: str) -> None:
        """The window is still there."""
        with locked(self._lock):
            held = self._read()
            if window in held:
                held[window] = (held[window][0], self._now())
                write_bytes(self._path, json.dumps(held).encode())

    def _read(self) -> dict[str, tuple[str, float]]:
        """Window → its record, and when it was there last; without those that are silent."""
        try:
            content = json.loads(self._path.read_bytes())
            return {window: (record, at) for window, (record, at) in content.items() if self._is_alive(at)}
        except (FileNotFoundError, ValueError, TypeError, AttributeError):
            return {}  # it can be made again

    def _is_alive(self, at: float) -> bool:
        return self._now() - at < _SILENT_SECONDS
