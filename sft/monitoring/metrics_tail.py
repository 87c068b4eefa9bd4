"""The last steps in a stage's metrics file, while another process appends to it."""

import statistics
from pathlib import Path

from sft.json_lines import LineTail
from sft.metrics import StepMetrics, read_metrics_line

_RATE_STEPS = 20
_FIRST_BYTES = 32_768
"""How much of a long file is read at first: more than the last steps, from which the rates are computed."""


class MetricsTail:
    """The last steps of a stage, updated by each call of `read_new`."""

    def __init__(self, path: Path) -> None:
        """The file may not be there yet."""
        self._lines = LineTail.near_end(path, _FIRST_BYTES)
        self._recent: list[StepMetrics] = []

    def read_new(self) -> bool:
        """Read the complete lines that were added; returns whether there were any."""
        fresh = [step for line in self._lines.read_new() if (step := read_metrics_line(line)) is not None]
        # The rates are those of the current attempt.
        self._recent = [s for s in (*self._recent, *fresh) if s.attempt == fresh[-1].attempt] if fresh else self._recent
        self._recent = self._recent[-_RATE_STEPS:]
        return bool(fresh)

    @property
    def last(self) -> StepMetrics | None:
        """The last step, if there is one."""
        return self._recent[-1] if self._recent else None

    @property
    def num_done(self) -> int:
        """Steps done."""
        return self._recent[-1].step + 1 if self._recent else 0

    @property
    def step_seconds(self) -> float:
        """Mean time of the last steps."""
        return sum(step.seconds for step in self._recent) / len(self._recent)

    @property
    def tokens_per_second(self) -> float:
        """Real tokens, over all ranks, in the last steps."""
        return sum(step.num_tokens for step in self._recent) / sum(step.seconds for step in self._recent)

    @property
    def supervised_tokens_per_second(self) -> float:
        """Tokens in the loss, over all ranks, in the last steps."""
        return sum(step.num_supervised_tokens for step in self._recent) / sum(step.seconds for step in self._recent)

    @property
    def mfu(self) -> float | None:
        """Mean model FLOPs utilisation of the last steps, 0 to 1; None if it is not known."""
        known = [step.mfu for step in self._recent if step.mfu is not None]
        return statistics.fmean(known) if known else None

    @property
    def seconds_left(self) -> float:
        """Seconds to the end of the stage, at the current rate."""
        last = self._recent[-1]
        return (last.num_steps - last.step - 1) * self.step_seconds

    @property
    def straggler(self) -> tuple[int, float] | None:
        """The rank that was the slowest in most of the last steps, and its median slowdown; None if it varies."""
        slowest = [step.slowest_rank for step in self._recent]
        rank = statistics.mode(slowest)
        if 2 * slowest.count(rank) <= len(slowest):
            return None
        return rank, statistics.median(step.slowdown for step in self._recent if step.slowest_rank == rank)
