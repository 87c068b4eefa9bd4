"""How often Ray was lost without progress, and what is waited for before another start.

A Ray of our own is started again. A cluster that others run may come back, as under Slurm, where each node starts Ray
again; it is given a while for that.
"""

import os
import time

from sft.training.restarts import pause_after

COME_BACK_SECONDS = 60.0
"""A cluster that others run is waited for so long."""

_LOOK_SECONDS = 3.0


class RayLosses:
    """Of one command."""

    def __init__(self, most: int) -> None:
        """`most`: losses in a row without progress that another start may follow; -1: any number."""
        self.is_named = bool(os.environ.get("RAY_ADDRESS"))
        self.in_a_row = 0
        self._most = most
        self._lost_at = 0.0

    def add(self, had_progress: bool) -> None:
        """One more. `had_progress`: since the last one."""
        self.in_a_row = 1 if had_progress else self.in_a_row + 1
        self._lost_at = time.monotonic()

    @property
    def are_too_many(self) -> bool:
        """Whether another start would not help."""
        return 0 <= self._most < self.in_a_row

    def pause(self) -> None:
        """Before the next start; longer with each loss in a row."""
        time.sleep(pause_after(self.in_a_row))

    def may_come_back(self) -> bool:
        """Called where a named cluster does not answer: wait a moment, or False if it was given time enough."""
        if not self.in_a_row or time.monotonic() - self._lost_at > COME_BACK_SECONDS:
            return False
        time.sleep(_LOOK_SECONDS)
        return True
