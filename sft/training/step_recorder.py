"""Records each step: ledger, metrics (a JSON line), loss spikes. Only the first rank has a recorder."""

import statistics
import time
from collections.abc import Sequence
from pathlib import Path

from sft.data.loader import StepLoader
from sft.engine.engine import StepResult
from sft.ledger import LedgerWriter, entry_from_slots
from sft.metrics import StepMetrics, append_metrics
from sft.sizing.flops import TokenCounts
from sft.training.attempt import Attempt
from sft.training.loss_spikes import SpikeDetector
from sft.training.lr_schedule import StageSchedule
from sft.training.mfu_meter import MfuMeter
from sft.training.peak_memory import read_peaks
from sft.training.step_exchange import StepSummary


class StepRecorder:
    """Turns the result of a step into its records."""

    def __init__(
        self,
        stage: str,
        loader: StepLoader,
        schedule: StageSchedule,
        attempt: Attempt,
        ledger: LedgerWriter,
        mfu_meter: MfuMeter,
        file: Path,
    ) -> None:
        """`file` gets the metrics as JSON lines, which the sinks read (`sft.sinks`)."""
        self._stage = stage
        self._loader = loader
        self._schedule = schedule
        self._attempt = attempt
        self._ledger = ledger
        self._mfu_meter = mfu_meter
        self._file = file
        self._spikes = SpikeDetector()
        file.parent.mkdir(parents=True, exist_ok=True)

    def __call__(
        self, step: int, result: StepResult | None, summary: StepSummary, seconds: float, stall_seconds: float
    ) -> None:
        """Record one step; a step without an update is recorded only in the ledger."""
        world_size = len(summary.seconds_per_token)
        entry = entry_from_slots(step, self._attempt.number, world_size, summary.slots, result is not None)
        self._ledger.append(entry)
        if result is not None:
            self._record_metrics(step, result, summary, seconds, stall_seconds)

    def _record_metrics(
        self, step: int, result: StepResult, summary: StepSummary, seconds: float, stall_seconds: float
    ) -> None:
        slowest, slowdown = slowest_of(summary.seconds_per_token)
        packs = self._loader.steps.step_packs(step)
        num_tokens = int(self._loader.plan.num_tokens[packs.start : packs.stop].sum())
        num_supervised = self._loader.num_supervised_tokens(step)
        peaks = read_peaks(self._attempt.ranks.world)
        metrics = StepMetrics(
            stage=self._stage,
            step=step,
            num_steps=self._schedule.num_steps,
            loss=result.loss,
            grad_norm=result.grad_norm,
            lr=self._schedule(step),
            num_supervised_tokens=num_supervised,
            num_tokens=num_tokens,
            seconds=seconds,
            checkpoint_stall_seconds=stall_seconds,
            peak_memory_gib=peaks.of_training,
            peak_resident_gib=peaks.resident,
            peak_reserved_gib=peaks.reserved,
            mfu=self._mfu_meter(TokenCounts(num_tokens, num_supervised, summary.squared_lengths), seconds),
            slowest_rank=slowest,
            slowdown=slowdown,
            input_wait_seconds=summary.input_wait_seconds,
            attempt=self._attempt.number,
            time=time.time(),
        )
        append_metrics(self._file, metrics)
        spike = self._spikes.find(result.loss)
        if spike is not None:
            text = f"step {step}, packs {packs.start} to {packs.stop - 1}: {spike}"
            self._attempt.events.add("spike", text, stage=self._stage, step=step)


def slowest_of(paces: Sequence[float]) -> tuple[int, float]:
    """The rank that takes the most time for a token, and how many times that of the median rank; 0: it has no pace."""
    slowest, known = max(range(len(paces)), key=paces.__getitem__), [pace for pace in paces if pace]
    return slowest, paces[slowest] / statistics.median(known) if known else 1.0
