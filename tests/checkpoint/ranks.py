"""Ranks as threads that meet at a barrier, and what they save: for tests of what takes several ranks."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from sft.checkpoint.rank_file import CheckpointReader
from sft.checkpoint.resume import open_newest_good
from sft.checkpoint.saver import CheckpointSaver
from sft.checkpoint.storage import CheckpointStorage
from sft.config import CheckpointConfig
from sft.engine.engine import Shard
from sft.progress import Progress
from sft.ranks.agreement import any_rank
from sft.world import World

T = TypeVar("T")
KEYS = ("norm/master", "weight/master", "weight/exp_avg")


class Rank:
    """`sft.ranks.ranks.Ranks` of one of several threads; a collective fails where a thread has ended with an error."""

    def __init__(self, world: World, barrier: threading.Barrier, slots: list[Any]) -> None:
        self.world, self._barrier, self._slots = world, barrier, slots
        self.progress = Progress()
        self.reports: list[str] = []
        self.report: Callable[[str], None] = self.reports.append

    def sum(self, values: Tensor) -> Tensor:
        return torch.stack(self._all(values)).sum(0)

    def max(self, values: Tensor) -> Tensor:
        return torch.stack(self._all(values)).amax(0)

    def gather(self, text: str) -> list[str]:
        return self._all(text)

    def all_to_all(self, values: Tensor) -> Tensor:
        found = self._all(values.clone())
        return torch.stack([found[rank][self.world.sequence_place] for rank in self.world.sequence_ranks])

    def _all(self, mine: T) -> list[T]:
        self._slots[self.world.rank] = mine
        self._barrier.wait(30)
        found = list(self._slots)
        self._barrier.wait(30)
        return found

    def agree(self, mine: bool) -> bool:
        return any_rank(self, mine)

    def leave(self) -> None:
        """As if the process had died: collectives of the others fail."""
        self._barrier.abort()

    def saver(
        self,
        storage: CheckpointStorage,
        attempt: int = 1,
        before_publish: Callable[[], None] | None = None,
        pauses_seconds: Sequence[float] = (0.0, 0.0),
        **settings: Any,
    ) -> CheckpointSaver:
        config = CheckpointConfig(**{"keep_last": 9} | settings)
        return CheckpointSaver(storage, self, attempt, config, self.report, before_publish, pauses_seconds)

    def open(self, storage: CheckpointStorage, **changes: Any) -> CheckpointReader | None:
        return open_newest_good(storage, self, self.report, **changes)


def run_ranks(size: int, main: Callable[[Rank], T], sequence_parallel: int = 1) -> list[T]:
    """What `main` returns on each rank; an error of one ends all, and is raised."""
    barrier, slots = threading.Barrier(size), [None] * size

    def run(rank: int) -> T:
        try:
            return main(Rank(World(rank, size, sequence_parallel=sequence_parallel), barrier, slots))
        except BaseException:
            barrier.abort()
            raise

    with ThreadPoolExecutor(size) as threads:
        futures = [threads.submit(run, rank) for rank in range(size)]
    errors = [error for future in futures if (error := future.exception())]
    for error in sorted(errors, key=lambda error: isinstance(error, threading.BrokenBarrierError)):
        raise error
    return [future.result() for future in futures]


def values_of(step: int, key: str, numel: int = 37) -> Tensor:
    return torch.randn(numel, generator=torch.Generator().manual_seed(1000 * step + KEYS.index(key)))


def range_of(world: World, numel: int = 37) -> range:
    """A rank's part as ZeRO-3 deals it out: `ceil(numel / world_size)` each, the last ones less."""
    share = -(-numel // world.size)
    return range(min(world.rank * share, numel), min((world.rank + 1) * share, numel))


def state_of(step: int, world: World, numel: int = 37) -> dict[str, Shard]:
    part = range_of(world, numel)
    return {key: Shard(numel, part.start, values_of(step, key, numel)[part.start : part.stop]) for key in KEYS}


def save_steps(storage: CheckpointStorage, size: int, *steps: int, numel: int = 37, **changes: Any) -> None:
    """Save each step and publish the last, as a training of `size` ranks does."""

    def main(rank: Rank) -> None:
        saver = rank.saver(storage, **changes)
        for step in steps:
            saver.save(step, state_of(step, rank.world, numel), {"stage": "x", "num_updates": step - 1})
        assert saver.finish()
        saver.close()

    run_ranks(size, main)


def resumed_step(storage: CheckpointStorage, size: int, numel: int = 37, **changes: Any) -> tuple[int, list[str]]:
    """The step that `size` ranks go on from (0: none), having compared all that they read; and the first's reports."""

    def main(rank: Rank) -> tuple[int, list[str]]:
        part = range_of(rank.world, numel)
        reader = rank.open(storage, parts=dict.fromkeys(KEYS, part), **changes)
        if reader is None:
            return 0, rank.reports
        with reader:
            for key in KEYS:
                expected = values_of(reader.step, key, numel)[part.start : part.stop]
                assert torch.equal(reader.read(key, part.start, part.stop), expected)
            assert reader.manifest["num_updates"] == reader.step - 1
            return reader.step, rank.reports

    found = run_ranks(size, main)
    assert len({step for step, _ in found}) == 1
    return found[0]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())
