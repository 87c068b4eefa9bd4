"""Saves checkpoints while training goes on; a failed save is reported and counted, and loses nothing else.

    save k+1:  settle save k ──▶ copy the state ──▶ thread: write this rank's file, leave a receipt
                                                   first rank's thread: wait for all receipts, publish, delete old ones
    settle:    wait for all parts, then for the publishing, in rounds; did any fail?

Threads call no collective. So the ranks agree on the result of a save where all of them meet anyway: at the next save,
or at the end. There is no time limit for a save, as long as it makes progress (see `sft.ranks.shared_work`).
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import partial
from threading import Event
from typing import Any

from sft.checkpoint.publishing import Publisher
from sft.checkpoint.rank_file import rank_file_name, write_rank_file
from sft.checkpoint.retention import FindBest, Retention, no_best
from sft.checkpoint.state_copy import StateCopier, StateCopy, cuda_copies
from sft.checkpoint.storage import CheckpointStorage, SaveKey
from sft.checkpoint.tries import PAUSES_SECONDS, try_again
from sft.config import CheckpointConfig
from sft.engine.engine import Shard
from sft.ranks.ranks import Ranks
from sft.ranks.shared_work import wait_for_all

_LOOK_EVERY_SECONDS = 0.1


class CheckpointError(RuntimeError):
    """Too many saves in a row have failed to go on training. Raised on all ranks."""


@dataclass(frozen=True)
class _Saving:
    """A save under way: this rank's part, and on the first rank the publishing."""

    key: SaveKey
    written: Future[None]
    published: Future[None] | None
    give_up: Event


class CheckpointSaver:
    """The checkpoints of one stage, as one rank sees them. `close` it on every way out."""

    def __init__(  # noqa: PLR0913  (a stage gives them all, and so names what it gives)
        self,
        storage: CheckpointStorage,
        ranks: Ranks,
        attempt: int,
        config: CheckpointConfig,
        report: Callable[[str], None],
        before_publish: Callable[[], None] | None = None,
        pauses_seconds: Sequence[float] = PAUSES_SECONDS,
        find_best: FindBest = no_best,
    ) -> None:
        """The first rank removes what unfinished saves of other attempts left.

        Args:
            storage: where the checkpoints are kept; all ranks see the same.
            ranks: the ranks whose state is saved.
            attempt: the number of this start of the job, a new one at each start.
            config: whether training goes on while a save is written, how many saves in a row may fail, and which
                checkpoints are kept.
            report: takes one line for the log; also called from threads.
            before_publish: called in a thread of the first rank just before a checkpoint becomes visible. An `OSError`
                in it is a failed try.
            pauses_seconds: between the tries of a write; there is one more try than pauses.
            find_best: called in the same thread, to keep the best one. An `OSError` in it deletes none.
        """
        self._storage = storage
        self._ranks = ranks
        self._world = ranks.world
        self._attempt = attempt
        self._config = config
        self._report = report
        self._pauses_seconds = pauses_seconds
        self._writing = ThreadPoolExecutor(1, "checkpoint-write")
        self._publishing = ThreadPoolExecutor(1, "checkpoint-publish")
        retention = Retention(config.keep_last, config.keep_every_steps, find_best)
        self._publisher = Publisher(storage, self._world.size, retention, report, before_publish, pauses_seconds)
        self._copier = StateCopier(report, cuda_copies)
        self._preparing: Future[None] | None = None
        self._saving: _Saving | None = None
        self._num_saves = 0
        self._failures: list[str] = []
        if self._world.is_first:
            try:
                storage.discard_unfinished(attempt)
            except OSError as error:
                report(f"the remains of unfinished saves could not be removed: {error}")

    def prepare(self, state: Callable[[], Mapping[str, Shard]]) -> None:
        """Make the memory that saves of such a state need, in a thread, so that the first save need not wait for it.

        Only the first call counts.
        """
        if self._preparing is None:
            self._preparing = self._writing.submit(self._copier.prepare, state())

    def save(self, step: int, state: Mapping[str, Shard], manifest: Mapping[str, Any]) -> float:
        """Settle the last save, then copy the state after `step` steps and start to write it; a collective.

        Args:
            step: the number of steps that are done.
            state: this rank's part; may change as soon as this returns.
            manifest: what else the checkpoint's manifest says.

        Returns:
            The seconds that training waited.

        Raises:
            CheckpointError: too many saves in a row have failed.
        """
        started = time.perf_counter()
        self._settle()
        self._num_saves += 1
        key = SaveKey(step, self._attempt, self._num_saves)
        if self._preparing is not None:
            self._preparing.result()
        copied = self._copier.copy(state, must_copy=self._config.async_)
        give_up = Event()
        written = self._writing.submit(self._write, key, copied)
        published = None
        if self._world.is_first:
            sizes = {name: shard.numel for name, shard in state.items()}
            published = self._publishing.submit(self._publisher.publish, key, {**manifest, "sizes": sizes}, give_up)
        self._saving = _Saving(key, written, published, give_up)
        if not self._config.async_:
            self._settle()
        return time.perf_counter() - started

    def finish(self) -> bool:
        """Settle the last save; a collective.

        Returns:
            Whether it is published. If not, the failure is counted and reported, and the state may be saved again.

        Raises:
            CheckpointError: too many saves in a row have failed.
        """
        self._settle()
        return not self._failures

    def close(self, quiet_seconds: float = 5.0) -> None:
        """End the threads; no collective, so it is safe after any error.

        Waits for a save under way as long as it makes progress: for this rank's part, and on the first rank for the
        parts of others, with at most `quiet_seconds` between two. The parts of dead ranks never come.
        """
        if self._saving is not None:
            self._wait_here(self._saving.written, math.inf)
            if self._saving.published is not None:
                self._wait_here(self._saving.published, quiet_seconds)
            self._saving.give_up.set()
        self._writing.shutdown()
        self._publishing.shutdown()
        self._copier.close()

    def _wait_here(self, task: Future[None], quiet_seconds: float) -> None:
        """Wait until the task is done, or nothing has happened for `quiet_seconds`."""
        seen, changed_at = self._storage.progress.count, time.monotonic()
        while not wait([task], _LOOK_EVERY_SECONDS).done and time.monotonic() - changed_at < quiet_seconds:
            if (count := self._storage.progress.count) != seen:
                seen, changed_at = count, time.monotonic()
                self._ranks.progress.tell()

    def _settle(self) -> None:
        if self._saving is None:
            return
        saving, work = self._saving, self._storage.progress
        failed = wait_for_all(self._ranks, partial(_look, saving.written), work, saving.give_up.set)
        # Wait even after giving up: the publishing must be over before its files are removed.
        failed = wait_for_all(self._ranks, partial(_look, saving.published), work) or failed
        self._saving = None
        if not failed:
            self._failures.clear()
            return
        if self._world.is_first:
            self._discard(saving.key)
        why = _failure(saving.written) or _failure(saving.published)
        self._count(saving.key.step, why or "another rank could not write its part, or the first could not publish")

    def _count(self, step: int, reason: str) -> None:
        self._failures.append(f"step {step}: {reason}")
        num_failed = len(self._failures)
        if num_failed < self._config.max_failed_saves:
            self._report(
                f"the checkpoint of step {step} was not saved: {reason}. Training goes on; failed saves in a row: "
                f"{num_failed}, checkpoint.max_failed_saves: {self._config.max_failed_saves}"
            )
            return
        raise CheckpointError(
            f"{num_failed} saves in a row have failed (checkpoint.max_failed_saves: {self._config.max_failed_saves}):\n"
            + "\n".join(f"  {failure}" for failure in self._failures)
            + "\nFix the cause; the same command goes on from the last checkpoint that was saved."
        )

    def _write(self, key: SaveKey, copied: StateCopy) -> None:
        copied.wait()
        name = rank_file_name(self._world.rank, self._world.size)
        tell = self._storage.progress.tell
        try_again(
            lambda: self._storage.write_part(key, name, lambda path: write_rank_file(path, copied.state, tell)),
            f"writing this rank's part of the checkpoint of step {key.step}",
            self._report,
            self._pauses_seconds,
        )

    def _discard(self, key: SaveKey) -> None:
        try:
            self._storage.discard(key)
        except OSError as error:
            self._report(f"the remains of the failed save of step {key.step} could not be removed: {error}")


def _look(task: Future[None] | None, seconds: float) -> bool | None:
    """Whether the task has failed; waits `seconds` at most, and returns None if it is not done."""
    if task is None:
        return False
    wait([task], seconds)
    return _failure(task) is not None if task.done() else None


def _failure(task: Future[None] | None) -> str | None:
    """Why the task failed, if it did. An error that is not an `OSError` is a bug of the program, and is raised."""
    try:
        if task is not None:
            task.result()
    except OSError as error:
        return f"{type(error).__name__}: {error}"
    return None
