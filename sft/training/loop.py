"""The training loop: draw, step, record, agree, evaluate, save. Everything it uses is built before (`stage`)."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from sft.checkpoint.store import CheckpointStore
from sft.config import CheckpointConfig
from sft.data.loader import StepLoader
from sft.engine.engine import Engine, NonFiniteError, StepResult
from sft.training.lr_schedule import LrSchedule

RecordStep = Callable[[int, StepResult, float, float], None]
"""(step, result, seconds of the step, seconds the checkpoint before it took from training)"""


@dataclass(frozen=True)
class Loop:
    """The parts of a stage's loop. `evaluate` is called after each `evaluate_every_steps`, by all ranks."""

    engine: Engine
    loader: StepLoader
    schedule: LrSchedule
    checkpoints: CheckpointStore
    checkpoint: CheckpointConfig
    checkpoint_manifest: dict[str, Any]
    record: RecordStep
    stop_is_requested: Callable[[], bool]
    evaluate: Callable[[int], None]
    evaluate_every_steps: int | None

    def run(self, first_step: int) -> bool:
        """Train from `first_step` to the end; False if it stopped before, on request, with a checkpoint saved."""
        stall_seconds, saved_at = 0.0, time.monotonic()
        for step in range(first_step, self.schedule.num_steps):
            started = time.perf_counter()
            micro_batches = self.loader.micro_batches(step)
            try:
                result = self.engine.train_step(
                    micro_batches, self.loader.num_supervised_tokens(step), self.schedule(step)
                )
            except NonFiniteError as error:
                packs = self.loader.steps.step_packs(step)
                raise NonFiniteError(f"step {step}, packs {packs.start} to {packs.stop - 1}: {error}") from error
            self.record(step, result, time.perf_counter() - started, stall_seconds)
            num_done = step + 1
            is_last = num_done == self.schedule.num_steps
            stop, is_due = self._agree(time.monotonic() - saved_at)
            stall_seconds = 0.0
            if is_last or stop or is_due or self._is_multiple(num_done, self.checkpoint.every_steps):
                stall_seconds = self.checkpoints.save(num_done, self.engine.local_state(), self.checkpoint_manifest)
                saved_at = time.monotonic()
            if self._is_multiple(num_done, self.evaluate_every_steps) and not is_last:
                self.evaluate(num_done)
            if stop and not is_last:
                self.checkpoints.wait()
                return False
        self.checkpoints.wait()
        return True

    def _agree(self, seconds_since_save: float) -> tuple[bool, bool]:
        """What all ranks do next: stop? save? The first rank's clock and signals decide."""
        wishes = [0.0, 0.0]
        if self.engine.world.is_first:
            minutes = self.checkpoint.every_minutes
            wishes = [self.stop_is_requested(), minutes is not None and seconds_since_save > 60 * minutes]
        stop, save = self.engine.all_reduce_max(torch.tensor(wishes, dtype=torch.float32)).tolist()
        return bool(stop), bool(save)

    @staticmethod
    def _is_multiple(num_done: int, every: int | None) -> bool:
        return every is not None and num_done % every == 0
