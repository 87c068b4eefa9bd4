"""The training loop: draw, step, record, agree, evaluate, save. Everything it uses is built before (`stage`)."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from sft.checkpoint.store import CheckpointStore
from sft.config import CheckpointConfig
from sft.data.collate import Batch
from sft.data.loader import StepLoader
from sft.engine.engine import Engine, NonFiniteError, StepResult
from sft.training.lr_schedule import LrSchedule
from sft.training.position import Position
from sft.training.skipping import SkipRule
from sft.training.wishes import Wishes


class RegroupError(RuntimeError):
    """The ranks end, with a checkpoint saved, to start again as a larger group: no failure."""


RecordStep = Callable[[int, StepResult, float, float], None]
"""(step, result, seconds of the step, seconds the checkpoint before it took from training)"""

RecordFed = Callable[[int, Sequence[Batch], bool], None]
"""(step, this rank's micro-batches, whether there was an update); all ranks call it together"""


@dataclass(frozen=True)
class Loop:
    """The parts of a stage's loop. `evaluate` is called after each `evaluate_every_steps`, by all ranks."""

    engine: Engine
    loader: StepLoader
    schedule: LrSchedule
    skip: SkipRule
    checkpoints: CheckpointStore
    checkpoint: CheckpointConfig
    checkpoint_manifest: dict[str, Any]
    record: RecordStep
    record_fed: RecordFed
    wishes: Wishes
    evaluate: Callable[[int], None]
    evaluate_every_steps: int | None
    position: Position

    def run(self, first_step: int) -> bool:
        """Train from `first_step` to the end; False if it stopped before, on request, with a checkpoint saved.

        Raises:
            RegroupError: the same, to begin again with more ranks.
        """
        stall_seconds, saved_at = 0.0, time.monotonic()
        for step in range(first_step, self.schedule.num_steps):
            started = time.perf_counter()
            result = self._train(step)
            if result is not None:
                self.record(step, result, time.perf_counter() - started, stall_seconds)
                stall_seconds = 0.0
            num_done = step + 1
            is_last = num_done == self.schedule.num_steps
            is_multiple = self._is_multiple(num_done, self.checkpoint.every_steps)
            stop, is_due, regroup = self._agree(time.monotonic() - saved_at, is_multiple)
            if is_last or stop or is_due:
                stall_seconds += self._save(num_done)
                saved_at = time.monotonic()
            if self._is_multiple(num_done, self.evaluate_every_steps) and not is_last:
                self.evaluate(num_done)
            if stop and not is_last:
                self._finish_saving(num_done)
                return False
            if regroup and not is_last:
                self._finish_saving(num_done)
                raise RegroupError(f"step {num_done}: there is room for more workers")
        self._finish_saving(self.schedule.num_steps)
        return True

    def _train(self, step: int) -> StepResult | None:
        """Take the step; None if it made no update, by the rule for what is not finite."""
        self.position.enter("train", step, tuple(self.loader.own_packs(step)))
        micro_batches = self.loader.micro_batches(step)
        result = None
        try:
            result = self.engine.train_step(micro_batches, self.loader.num_supervised_tokens(step), self.schedule(step))
            self.skip.count_update()
        except NonFiniteError as error:
            self.skip.count_skipped(step, self.loader, error)
        self.record_fed(step, micro_batches, result is not None)
        return result

    def _save(self, num_done: int) -> float:
        self.position.enter("save", num_done - 1)
        manifest = {**self.checkpoint_manifest, "num_updates": num_done - self.skip.num_skipped}
        return self.checkpoints.save(num_done, self.engine.local_state(), manifest)

    def _finish_saving(self, num_done: int) -> None:
        """What was trained last must be on disk: a save that failed is tried again, until there were too many."""
        while not self.checkpoints.finish():
            self._save(num_done)

    def _agree(self, seconds_since_save: float, is_multiple: bool) -> tuple[bool, bool, bool]:
        """What all ranks do next: stop? save? begin again with more of them? The first rank decides."""
        wishes = [False, is_multiple, False]
        if self.engine.world.is_first:
            minutes = self.checkpoint.every_minutes
            is_due = is_multiple or (minutes is not None and seconds_since_save > 60 * minutes)
            is_due = is_due or self.wishes.to_save()
            wishes = [self.wishes.to_stop(), is_due, is_due and self.wishes.to_grow()]
        stop, save, regroup = self.engine.all_reduce_max(torch.tensor(wishes, dtype=torch.float32)).tolist()
        return bool(stop), bool(save), bool(regroup)

    @staticmethod
    def _is_multiple(num_done: int, every: int | None) -> bool:
        return every is not None and num_done % every == 0
