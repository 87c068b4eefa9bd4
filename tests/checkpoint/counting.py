"""What saving and resuming cost in operations of the storage and in bytes, rank by rank: the real code, whose
ranks come one after another, on a folder and on an object storage in memory. Both are watched from below.
"""

import os
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import fsspec
import torch
from fsspec.implementations.memory import MemoryFile, MemoryFileSystem

from sft.checkpoint.rank_file import CheckpointReader
from sft.checkpoint.resume import open_newest_good
from sft.checkpoint.saver import CheckpointSaver
from sft.checkpoint.storage import CheckpointStorage
from sft.config import CheckpointConfig
from sft.engine.engine import Shard
from sft.progress import Progress
from sft.world import World

SIZES = {f"weight-{i}/master": 4096 * times for i, times in enumerate((16, 8, 4, 3, 2, 1))}
"""Tensors of a model, and their elements: as many sizes as a Llama has."""
_OPERATIONS = ("open", "os.listdir", "os.scandir", "os.mkdir", "os.rename", "os.remove", "os.rmdir")
_LISTED_AT_ONCE = 1000
"""Names in one answer of an object storage."""


class Cost(NamedTuple):
    """What one rank has asked of the storage."""

    operations: int
    bytes_read: int
    by_kind: Mapping[str, int]


class _Watch:
    """Counts what this process asks of a file system: opens, listings, changes of names, and looks at a file."""

    def __init__(self) -> None:
        self.counts: Counter[str] | None = None
        sys.addaudithook(self._see)  # stays for good, and sleeps

    def _see(self, event: str, arguments: Any) -> None:
        if self.counts is not None and event in _OPERATIONS:
            self.counts[event] += 1


_watch: list[_Watch] = []


@contextmanager
def counted(found: list[Cost]) -> Iterator[None]:
    """Append what is asked of file system and object storage in this block."""
    if not _watch:
        _watch.append(_Watch())
    counts: Counter[str] = Counter()
    stat = os.stat

    def count_stat(*arguments: Any, **options: Any) -> os.stat_result:
        counts["stat"] += 1
        return stat(*arguments, **options)

    before = _bytes_read()
    CountedStorage.counts, CountedStorage.bytes_read = counts, 0
    _watch[0].counts, os.stat = counts, count_stat
    try:
        yield
    finally:
        _watch[0].counts, os.stat = None, stat
        CountedStorage.counts = None
    found.append(Cost(counts.total(), max(0, _bytes_read() - before) + CountedStorage.bytes_read, dict(counts)))


def _bytes_read() -> int:
    """By system calls, of all threads."""
    descriptor = os.open("/proc/self/io", os.O_RDONLY)
    try:
        return int(os.read(descriptor, 200).split()[1])
    finally:
        os.close(descriptor)


class CountedStorage(MemoryFileSystem):
    """An object storage in memory that counts requests, and the bytes that it gives."""

    protocol = "counted"
    store: dict[str, Any] = {}
    pseudo_dirs = [""]
    counts: Counter[str] | None = None
    bytes_read = 0

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        return super()._strip_protocol(str(path).replace("counted://", "memory://"))

    def ls(self, path: str, detail: bool = True, **options: Any) -> list[Any]:
        found: list[Any] = super().ls(path, detail=detail, **options)
        self._count("list", 1 + len(found) // _LISTED_AT_ONCE)
        return found

    def exists(self, path: str, **options: Any) -> bool:
        self._count("head")
        return bool(super().exists(path, **options))

    def put_file(self, lpath: str, rpath: str, *arguments: Any, **options: Any) -> None:
        self.pipe_file(rpath, Path(lpath).read_bytes())

    def pipe_file(self, path: str, value: bytes, **options: Any) -> None:
        self._count("put")
        key = self._strip_protocol(path)
        self.store[key] = MemoryFile(self, key, value)

    def cat_file(self, path: str, *arguments: Any, **options: Any) -> bytes:
        self._count("get")
        content: bytes = self.store[self._strip_protocol(path)].getvalue()
        type(self).bytes_read += len(content)
        return content

    def get_file(self, rpath: str, lpath: str, *arguments: Any, **options: Any) -> None:
        if self._strip_protocol(rpath) not in self.store:
            raise FileNotFoundError(rpath)
        Path(lpath).write_bytes(self.cat_file(rpath))

    def rm_file(self, path: str) -> None:
        self._count("delete")
        super().rm_file(path)

    def _count(self, kind: str, times: int = 1) -> None:
        if CountedStorage.counts is not None:
            CountedStorage.counts[kind] += times


fsspec.register_implementation("counted", CountedStorage, clobber=True)


class Costs(NamedTuple):
    """Of the first rank and of the last."""

    first: Cost
    last: Cost


def save(storage: CheckpointStorage, num_ranks: int, step: int) -> Costs:
    """A save of all ranks; the first one comes last, publishes, and deletes the checkpoint before."""
    found: list[Cost] = []
    for rank in reversed(range(num_ranks)):
        saver = CheckpointSaver(
            storage,
            _Echo(rank, num_ranks),
            attempt=1,
            config=CheckpointConfig(keep_last=1, async_=False),
            report=print,
        )
        state = _state(rank, num_ranks)
        with counted(found):
            saver.save(step, state, {"stage": "only"})
        saver.close()
    return Costs(found[-1], found[0])


def resume(storage: CheckpointStorage, num_ranks: int, of_ranks: int | None = None) -> Costs:
    """All ranks, or the first and the last, find the newest checkpoint, check what they read of it, and read it."""
    found: list[Cost] = []
    for rank in (0, num_ranks - 1):
        state = _state(rank, num_ranks)
        parts = {key: range(shard.start, shard.start + len(shard.values)) for key, shard in state.items()}
        with counted(found):
            reader = open_newest_good(storage, _Echo(rank, num_ranks), print, parts)
            assert isinstance(reader, CheckpointReader)
            with reader:
                for key, part in parts.items():
                    reader.read(key, part.start, part.stop)
    return Costs(*found)


class _Echo:
    """Ranks of which each is answered by the others with what it says itself: they come one after another."""

    def __init__(self, rank: int, num_ranks: int) -> None:
        self.world, self.progress = World(rank, num_ranks), Progress()

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        return values * self.world.size

    def max(self, values: torch.Tensor) -> torch.Tensor:
        return torch.full_like(values, int(values.max()))

    def gather(self, text: str) -> list[str]:
        return [text] * self.world.size


def _state(rank: int, num_ranks: int) -> dict[str, Shard]:
    shards = {}
    for key, numel in SIZES.items():
        part = -(-numel // num_ranks)
        start = min(rank * part, numel)
        shards[key] = Shard(numel, start, torch.zeros(min(part, numel - start)))
    return shards
