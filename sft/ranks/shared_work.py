"""Slow work of all ranks, such as reading and writing: they wait for each other, and still detect a hang.

Inside a collective, no rank sees whether the others work or hang. So ranks that wait for reading or writing meet
repeatedly in short collectives that say how far each rank is:

    work in a thread, counted ──▶ round: who is done, and each one's count ──▶ all done? ──▶ no: the next round

A rank that is not done is alive if its own count has changed; one that is done, if the count of any unfinished rank
has. So ranks that make progress do not hide a blocked rank, and a slow rank makes no other rank look blocked.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TypeVar

import torch

from sft.progress import Progress
from sft.ranks.ranks import Ranks

T = TypeVar("T")

_FIRST_PAUSE_SECONDS, _LAST_PAUSE_SECONDS = 0.01, 0.2
_DONE, _FAILED = 2**62, 2**62 + 1
"""States that take the place of a count."""


def wait_for_all(
    ranks: Ranks,
    look: Callable[[float], bool | None],
    work: Progress,
    on_failure: Callable[[], None] = lambda: None,
) -> bool:
    """Wait until every rank has done its work; returns whether any has failed. A collective.

    Args:
        ranks: each of them waits for its own work.
        look: waits for the own work, for the given seconds at most; None if it is not done, else whether it failed.
        work: counts the own work.
        on_failure: called as soon as it is known here that a rank has failed.
    """
    rank, size = ranks.world.rank, ranks.world.size
    pause, seen = 0.0, None
    while True:
        failed = look(pause)
        row = torch.zeros(size, dtype=torch.int64)
        row[rank] = 1 + work.count if failed is None else _FAILED if failed else _DONE
        states = ranks.max(row).tolist()
        if _FAILED in states:
            on_failure()
        left = {other: state for other, state in enumerate(states) if state < _DONE}
        if not left:
            ranks.progress.waits_for = ()
            return _FAILED in states
        looked_at = {other: state for other, state in left.items() if failed is not None or other == rank}
        if looked_at != seen:
            ranks.progress.tell()
        seen, ranks.progress.waits_for = looked_at, tuple(left)
        pause = min(max(2 * pause, _FIRST_PAUSE_SECONDS), _LAST_PAUSE_SECONDS)


def work_together(ranks: Ranks, work: Callable[[], T], counted: Progress) -> T:
    """The result of `work` on this rank, once every rank has done its own work. A collective.

    Raises:
        Exception: the own work's, at once.
    """
    threads = ThreadPoolExecutor(1, "slow-work")
    task = threads.submit(work)
    # After an error of the group, nothing needs the end of the work.
    threads.shutdown(wait=False)

    def look(seconds: float) -> bool | None:
        wait([task], seconds)
        if not task.done():
            return None
        task.result()
        return False

    wait_for_all(ranks, look, counted)
    return task.result()
