"""Sees what of Ray is gone while workers train: a process of a Ray of our own, or the head of a cluster."""

import os
import time

from launcher.cluster.connection import RECONNECT_VARIABLE, Session, lost_process
from launcher.cluster.head import answers

_RECONNECT_SECONDS = 60.0
"""Ray's own default of how long it waits for a silent head."""


class RayWatch:
    """Of one connection."""

    def __init__(self, session: Session) -> None:
        """`session` is open for as long as this is asked."""
        self._session = session
        self._heard_at = time.monotonic()
        # A little less than Ray's, which then ends this process.
        self._patience_seconds = max(2.0, float(os.environ.get(RECONNECT_VARIABLE, _RECONNECT_SECONDS)) - 3)

    def what_is_lost(self, patience_seconds: float | None = None) -> str | None:
        """In words; None while all is there, or the head has been silent for no longer than that (default: Ray's)."""
        session = self._session
        if session.is_own:
            return lost_process()
        if answers(session.address):
            self._heard_at = time.monotonic()
            return None
        patience_seconds = self._patience_seconds if patience_seconds is None else patience_seconds
        if time.monotonic() - self._heard_at < patience_seconds:
            return None
        return f"the head of {session.where} is gone: nothing answers at {session.address}"
