"""A rank whose evaluations take long: it pauses at each sign of progress in them, and may stop altogether at one."""

import os
import signal
import time
from typing import Any

from sft.training.heartbeat import Heartbeat
from tests.chaos.rank import run_attempt


def run_slowly(
    rank: int,
    size: int,
    content: dict[str, Any],
    workload: Any,
    pause_seconds: float,
    hang_timeout_seconds: float,
    stops_at: int | None,
) -> int:
    """Train; the last rank is stopped when it has given so many signs in evaluations."""
    enter, num_signs = Heartbeat.enter, 0

    def entered(heartbeat: Heartbeat, place: str, *arguments: Any, **named: Any) -> None:
        nonlocal num_signs
        enter(heartbeat, place, *arguments, **named)
        if place == "evaluate":
            num_signs += 1
            time.sleep(pause_seconds)
            if num_signs == stops_at and rank == size - 1:
                os.kill(os.getpid(), signal.SIGSTOP)

    Heartbeat.enter = entered  # type: ignore[method-assign]  # that is the purpose
    return run_attempt(rank, size, content, workload, [[]] * size, [], hang_timeout_seconds)
