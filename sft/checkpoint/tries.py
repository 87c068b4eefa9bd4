"""Retries with pauses: a file system or a network that fails once often works again a moment later."""

import time
from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")

PAUSES_SECONDS = (0.5, 2.0)


def try_again(
    action: Callable[[], T], what: str, report: Callable[[str], None], pauses_seconds: Sequence[float] = PAUSES_SECONDS
) -> T:
    """What `action` returns, tried once more after each pause.

    Args:
        action: may be called again after it has failed half-way.
        what: names the action in the reports.
        report: gets a line for each failed try.
        pauses_seconds: how long to wait before each further try.

    Raises:
        OSError: the error of the last try.
    """
    num_tries = len(pauses_seconds) + 1
    for number, pause in enumerate(pauses_seconds, start=1):
        try:
            return action()
        except OSError as error:
            report(f"{what}: try {number} of {num_tries} failed with {type(error).__name__}: {error}")
        time.sleep(pause)
    try:
        return action()
    except OSError as error:
        report(f"{what}: try {num_tries} of {num_tries} failed with {type(error).__name__}: {error}")
        raise
