"""The ranks, as one of them sees them: what they agree on, and how they wait for each other's slow work.

In a collective nobody sees whether the others work or hang. So who waits for reading or writing meets the others again
and again, in short collectives that say how far each is:

    work in a thread, counted ──▶ round: who is done, and each one's count ──▶ all done? ──▶ no: the next round

A rank that is not done is alive if its own count has changed; one that is done, if that of any other has. So a rank
that is blocked is not hidden by others that go on, and nobody is taken for hanging because another one is slow.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from torch import Tensor

from sft.progress import Progress
from sft.world import World

T = TypeVar("T")

Reduce = Callable[[Tensor], Tensor]
"""The element-wise largest over all ranks of equally long int64 tensors on the CPU; all ranks call it together."""

_FIRST_PAUSE_SECONDS, _LAST_PAUSE_SECONDS = 0.01, 0.2
_DONE, _FAILED = 2**62, 2**62 + 1
"""In the place of a count."""


@dataclass(frozen=True)
class RankGroup:
    """What a rank needs of the others. Its methods are collectives."""

    world: World
    all_reduce_max: Reduce
    progress: Progress = field(default_factory=Progress)
    """Where this rank is looked at; changed by the thread that calls the methods."""

    def any(self, mine: bool) -> bool:
        """Whether any rank says True."""
        return bool(self.all_reduce_max(torch.tensor([int(mine)])).item())

    def meet(self) -> None:
        """Return once all ranks are here."""
        self.any(False)

    def texts(self, mine: str) -> list[str]:
        """The texts of all ranks that have one, each once."""
        content = mine.encode()
        length = int(self.all_reduce_max(torch.tensor([len(content)])).item())
        if not length:
            return []
        # The largest of rows that are zero elsewhere is a gathering.
        rows = torch.zeros(self.world.size, length, dtype=torch.int64)
        rows[self.world.rank, : len(content)] = torch.tensor(list(content), dtype=torch.int64)
        texts = (bytes(row[row > 0].tolist()).decode() for row in self.all_reduce_max(rows))
        return sorted({text for text in texts if text})

    def wait_for_all(
        self,
        look: Callable[[float], bool | None],
        work: Progress,
        on_failure: Callable[[], None] = lambda: None,
    ) -> bool:
        """Wait until every rank has done its work; whether any has failed.

        Args:
            look: waits for the own work, for so many seconds at most: None where it is not done, else whether it
                failed.
            work: counts the own work.
            on_failure: called as soon as it is known here that a rank has failed.
        """
        pause, seen = 0.0, None
        while True:
            failed = look(pause)
            row = torch.zeros(self.world.size, dtype=torch.int64)
            row[self.world.rank] = 1 + work.count if failed is None else _FAILED if failed else _DONE
            states = self.all_reduce_max(row).tolist()
            if _FAILED in states:
                on_failure()
            left = {rank: state for rank, state in enumerate(states) if state < _DONE}
            if not left:
                self.progress.waits_for = ()
                return _FAILED in states
            looked_at = {rank: state for rank, state in left.items() if failed is not None or rank == self.world.rank}
            if looked_at != seen:
                self.progress.tell()
            seen, self.progress.waits_for = looked_at, tuple(left)
            pause = min(max(2 * pause, _FIRST_PAUSE_SECONDS), _LAST_PAUSE_SECONDS)

    def run(self, work: Callable[[], T], counted: Progress) -> T:
        """What `work` returns here, once every rank has done its own, which it counts in `counted`.

        Raises:
            Exception: that of the own work, at once.
        """
        threads = ThreadPoolExecutor(1, "slow-work")
        task = threads.submit(work)
        # After an error of the group, the end of the work is of no use to anybody.
        threads.shutdown(wait=False)

        def look(seconds: float) -> bool | None:
            wait([task], seconds)
            if not task.done():
                return None
            task.result()
            return False

        self.wait_for_all(look, counted)
        return task.result()
