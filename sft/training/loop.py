"""The training loop: draw, step, exchange, record, save, evaluate. `stage` builds everything that it uses."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sft.cadence import Cadence
from sft.checkpoint.saver import CheckpointSaver
from sft.data.collate import Batch
from sft.data.loader import StepLoader
from sft.engine.engine import Engine, NonFiniteError, StepResult
from sft.errors import TrainingError
from sft.training.control_signals import ControlSignals
from sft.training.decisions import Verdict
from sft.training.heartbeat import Heartbeat
from sft.training.lookahead import LookAhead
from sft.training.lr_schedule import StageSchedule
from sft.training.skipping import SkipRule
from sft.training.step_exchange import StepDecision, StepExchange, StepSummary


class ResizeError(RuntimeError):
    """The ranks end, with a checkpoint saved, to restart as a larger group: this is not a failure."""


Record = Callable[[int, StepResult | None, StepSummary, float, float], None]
"""(step, its result, its summary over all ranks, seconds of the step, seconds that the checkpoint before it took from
training)

The result is None if there was no update.
"""


@dataclass(frozen=True)
class Loop:
    """The parts of a stage's loop. All ranks call `judge` when an evaluation is due, unless the run is asked to stop:
    then it is done on resume."""

    engine: Engine
    loader: StepLoader
    ahead: LookAhead
    schedule: StageSchedule
    skip: SkipRule
    checkpoints: CheckpointSaver
    saves: Cadence
    save_every_minutes: float | None
    checkpoint_manifest: dict[str, Any]
    exchange: StepExchange
    record: Record
    signals: ControlSignals
    judge: Callable[[int], Verdict]
    evaluations: Cadence
    heartbeat: Heartbeat

    def run(self, first_step: int, num_steps: int) -> int | None:
        """Train from `first_step` up to `num_steps`, or to where an evaluation ends the stage.

        Returns:
            The steps after which the stage has ended; None if it stopped earlier, on request, with a checkpoint saved.

        Raises:
            ResizeError: it stopped with a checkpoint saved, to restart with more ranks.
            TrainingError: too much was forgotten; a checkpoint was saved before.
        """
        stall_seconds, saved_at = 0.0, time.monotonic()
        for step in range(first_step, num_steps):
            started = time.perf_counter()
            num_done = step + 1
            is_last = num_done == self.schedule.num_steps
            micro_batches, wait_seconds = self._read(step)
            result = self._train(step, micro_batches)
            summary = self.exchange(micro_batches, self._decide(num_done, saved_at), wait_seconds)
            self.record(step, result, summary, time.perf_counter() - started, stall_seconds)
            if result is not None:
                stall_seconds = 0.0
                self.checkpoints.prepare(self.engine.local_state)
            stop, is_due, resize = summary.decision
            if is_last or stop or is_due:
                stall_seconds += self._save(num_done)
                saved_at = time.monotonic()
            if stop:
                # The stop does not wait for an evaluation. One that is due is done on resume.
                self._finish_saving(num_done)
                return None
            if self.evaluations.is_due(num_done) and not is_last:
                verdict = self.judge(num_done)
                if verdict.is_end or verdict.forgotten is not None:
                    self._finish_saving(num_done)
                if verdict.forgotten is not None:
                    raise TrainingError(verdict.forgotten, is_everywhere=True)
                if verdict.is_end:
                    return num_done
            if resize and not is_last:
                self._finish_saving(num_done)
                raise ResizeError(f"step {num_done}: there is room for more workers")
        self._finish_saving(num_steps)
        return num_steps

    def _read(self, step: int) -> tuple[Sequence[Batch], float]:
        """What this rank feeds in the step, and the seconds that it waited for it."""
        packs = tuple(self.loader.own_packs(step))
        self.heartbeat.enter("train", step, packs, also_counts=lambda: self.engine.num_begun)
        started = time.perf_counter()
        return self.ahead.micro_batches(step), time.perf_counter() - started

    def _train(self, step: int, micro_batches: Sequence[Batch]) -> StepResult | None:
        """Take the step; None if it was skipped because it was not finite."""
        try:
            lr = self.schedule(step)
            result = self.engine.train_step(micro_batches, self.loader.num_supervised_tokens(step), lr)
        except NonFiniteError as error:
            self.skip.count_skipped(step, self.loader, error)
            return None
        self.skip.count_update()
        return result

    def _save(self, num_done: int) -> float:
        self.heartbeat.enter("save", num_done - 1)
        manifest = {**self.checkpoint_manifest, "num_updates": num_done - self.skip.num_skipped}
        return self.checkpoints.save(num_done, self.engine.local_state(), manifest)

    def _finish_saving(self, num_done: int) -> None:
        """Make sure that the last steps are on disk: repeat a failed save, until too many have failed."""
        self.heartbeat.enter("finish saving", num_done - 1)
        while not self.checkpoints.finish():
            self._save(num_done)

    def _decide(self, num_done: int, saved_at: float) -> StepDecision:
        """What all ranks do after this step; the first rank decides."""
        if not self.engine.ranks.world.is_first:
            return StepDecision()
        minutes = self.save_every_minutes
        save = self.saves.is_due(num_done)
        save = save or (minutes is not None and time.monotonic() - saved_at > 60 * minutes)
        save = self.signals.save_requested() or save
        return StepDecision(self.signals.stop_requested(), save, save and self.signals.resize_requested())
