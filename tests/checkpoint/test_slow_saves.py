"""Slow is not dead: a save or a load takes as long as it likes while it goes on; what blocks is ended, and named."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from sft.checkpoint.local_storage import LocalStorage
from sft.checkpoint.storage import SaveKey
from sft.engine.engine import Shard
from sft.progress import CHUNK_BYTES
from sft.run_events import EventLog, read_events
from sft.run_folder import AttemptFolder
from sft.training.hang_watch import HangWatch
from sft.training.heartbeat import Heartbeat
from tests.checkpoint.ranks import Rank, resumed_step, run_ranks, save_steps, state_of
from tests.checkpoint.storages import StoredBytes

TIMEOUT_SECONDS = 0.8
SLOW_SECONDS = 5 * TIMEOUT_SECONDS
"""What blocks is ended after less than four."""
PAUSE_SECONDS = TIMEOUT_SECONDS / 8


class Slow(LocalStorage):
    """A disk on which writing and reading go on, slowly."""

    def write_part(self, *arguments: Any) -> None:
        self._work()
        super().write_part(*arguments)

    def fetch(self, *arguments: Any) -> None:
        self._work()
        super().fetch(*arguments)

    def _work(self) -> None:
        for _ in range(round(SLOW_SECONDS / PAUSE_SECONDS)):
            threading.Event().wait(PAUSE_SECONDS)
            self.progress.tell()


class Blocked(LocalStorage):
    """A disk on which nothing comes back, until it is let go."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.let_go = threading.Event()

    def write_part(self, key: SaveKey, *arguments: Any) -> None:
        self.let_go.wait(60)
        super().write_part(key, *arguments)


class Watched:
    """A rank under a watch that ends it by what `on_end` does."""

    def __init__(self, rank: Rank, folder: AttemptFolder, on_end: Callable[[], None]) -> None:
        self.heartbeat = Heartbeat()
        self.ended_after: float | None = None
        rank.progress = self.heartbeat.progress
        folder.rank(rank.world.rank).write_text(json.dumps({"pid": 1, "node": f"n{rank.world.rank}"}))
        started = time.monotonic()

        def end(code: int) -> None:
            self.ended_after = time.monotonic() - started
            on_end()

        events = EventLog(folder, rank.world.rank)
        self._watch = HangWatch(self.heartbeat, rank.world, folder, events, TIMEOUT_SECONDS, end)

    @contextmanager
    def at(self, place: str) -> Iterator[None]:
        self.heartbeat.enter(place, stage="broad")
        self._watch.start()
        try:
            yield
        finally:
            self._watch.stop()


def folders(tmp_path: Path) -> tuple[Path, AttemptFolder]:
    (tmp_path / "attempt").mkdir()
    return tmp_path / "checkpoints", AttemptFolder(tmp_path / "attempt")


def test_a_save_of_five_timeouts_lives_while_one_rank_writes_and_the_others_wait(tmp_path: Path) -> None:
    checkpoints, attempt = folders(tmp_path)

    def main(rank: Rank) -> None:
        watched = Watched(rank, attempt, rank.leave)
        storage = (Slow if rank.world.rank == 1 else LocalStorage)(checkpoints)
        store = rank.saver(storage)
        with watched.at("save"):
            started = time.monotonic()
            store.save(1, state_of(1, rank.world), {"num_updates": 0})
            assert store.finish()
            assert time.monotonic() - started > SLOW_SECONDS
        store.close()
        assert watched.ended_after is None

    run_ranks(3, main)
    assert resumed_step(LocalStorage(checkpoints), 2)[0] == 1
    assert read_events(attempt) == []


def test_a_checkpoint_that_one_rank_reads_for_five_timeouts_is_loaded(tmp_path: Path) -> None:
    checkpoints, attempt = folders(tmp_path)
    save_steps(LocalStorage(checkpoints), 3, 1)

    def main(rank: Rank) -> None:
        watched = Watched(rank, attempt, rank.leave)
        with watched.at("load checkpoint"):
            reader = rank.open((Slow if rank.world.rank == 1 else LocalStorage)(checkpoints))
        assert reader is not None
        reader.close()
        assert watched.ended_after is None

    run_ranks(3, main)


def test_a_save_that_blocks_is_ended_and_the_rank_is_named(tmp_path: Path) -> None:
    checkpoints, attempt = folders(tmp_path)
    blocked = Blocked(checkpoints)
    all_have_ended = threading.Barrier(3, blocked.let_go.set)

    def main(rank: Rank) -> float | None:
        watched = Watched(rank, attempt, lambda: all_have_ended.wait(30))
        store = rank.saver(blocked if rank.world.rank == 1 else LocalStorage(checkpoints))
        with watched.at("save"):
            store.save(1, state_of(1, rank.world), {"num_updates": 0})
            assert store.finish(), "the blocked one was let go"
        store.close()
        return watched.ended_after

    for after in run_ranks(3, main):
        assert after is not None
        assert after < 4 * TIMEOUT_SECONDS
    [event] = read_events(attempt)
    assert event.text == "rank 1 (node n1, pid 1) makes no progress with its part, at stage broad, save"


def test_a_rank_that_blocks_is_not_hidden_by_one_that_goes_on(tmp_path: Path) -> None:
    checkpoints, attempt = folders(tmp_path)

    def main(rank: Rank) -> float | None:
        storage = (LocalStorage(checkpoints), Blocked(checkpoints), Slow(checkpoints))[rank.world.rank]
        watched = Watched(rank, attempt, lambda: storage.let_go.set() if isinstance(storage, Blocked) else None)
        store = rank.saver(storage)
        with watched.at("save"):
            store.save(1, state_of(1, rank.world), {"num_updates": 0})
            assert store.finish()
        store.close()
        return watched.ended_after

    first, blocked, slow = run_ranks(3, main)
    assert first is None
    assert slow is None
    assert blocked is not None
    assert blocked < 4 * TIMEOUT_SECONDS


def test_training_that_stands_still_is_not_hidden_by_a_save_beside_it(tmp_path: Path) -> None:
    checkpoints, attempt = folders(tmp_path)

    def main(rank: Rank) -> float | None:
        ended = threading.Event()
        watched = Watched(rank, attempt, ended.set)
        store = rank.saver(Slow(checkpoints))
        store.save(1, state_of(1, rank.world), {"num_updates": 0})
        with watched.at("train"):
            assert ended.wait(30)
        store.close()
        return watched.ended_after

    [after] = run_ranks(1, main)
    assert after is not None
    assert after < 4 * TIMEOUT_SECONDS


def test_each_chunk_is_told_of_where_it_is_written_hashed_and_moved(store: StoredBytes) -> None:
    numel = CHUNK_BYTES  # four chunks
    values = torch.zeros(numel)

    def save(rank: Rank) -> None:
        checkpoints = rank.saver(store.storage)
        checkpoints.save(1, {"weight/master": Shard(numel, 0, values)}, {"num_updates": 0})
        assert checkpoints.finish()
        checkpoints.close()

    run_ranks(1, save)
    is_remote = not isinstance(store.storage, LocalStorage)
    assert store.storage.progress.count >= 4 + 4 + is_remote
    num_saved = store.storage.progress.count

    def load(rank: Rank) -> None:
        reader = rank.open(store.storage)
        assert reader is not None
        reader.close()

    run_ranks(1, load)
    assert store.storage.progress.count >= num_saved + 4 + is_remote
