"""What is recorded for each step: a fixed list of names, each with its unit. Rank 0 writes one JSON line a step.

Tokens are counted in three ways, with different names: supervised tokens are in the loss, tokens are all real ones,
slots include padding (packs as they are fed have none).
"""

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path

from sft.json_lines import append_line, from_json


@dataclass(frozen=True, slots=True)
class StepMetrics:
    """One trained step of a stage. `step` counts from 0; after a restart a step may have two records."""

    stage: str
    step: int
    num_steps: int
    loss: float
    """Mean nll of the step's supervised tokens, in nats."""
    grad_norm: float
    """Before clipping."""
    lr: float
    num_supervised_tokens: int
    num_tokens: int
    seconds: float
    """Wall time of the step, without checkpoint and evaluation."""
    checkpoint_stall_seconds: float
    """Wait for a checkpoint before this step, in seconds: for its copy, and for the end of the previous save."""
    peak_memory_gib: float
    """GiB (1024³ bytes) of rank 0 in this stage so far: tensors on the GPU, or the process if there is no GPU."""
    attempt: int
    """The number of the attempt that wrote this: how many times the job had been started."""
    time: float
    """Unix time in seconds."""
    mfu: float | None = None
    """Model FLOPs utilisation, 0 to 1 (see `sft.sizing.flops`); None on a CPU, and on an unknown GPU."""
    slowest_rank: int = 0
    """The rank that computed slowest, by a layer's forward pass (see `sft.engine.layer_clock`)."""
    slowdown: float = 1.0
    """The slowest rank's time a token, divided by that of the median rank."""
    peak_resident_gib: float | None = None
    """Peak GiB of the process, also with a GPU; None in records that lack it."""
    peak_reserved_gib: float | None = None
    """Peak GiB that torch reserved on the GPU; None on a CPU."""

    @property
    def supervised_tokens_per_second(self) -> float:
        """Tokens in the loss a second of wall time, over all ranks."""
        return self.num_supervised_tokens / self.seconds if self.seconds > 0 else math.nan

    @property
    def tokens_per_second(self) -> float:
        """Real tokens a second of wall time, over all ranks."""
        return self.num_tokens / self.seconds if self.seconds > 0 else math.nan


def append_metrics(path: Path, metrics: StepMetrics) -> None:
    """Add a line to the file."""
    append_line(path, asdict(metrics))


def read_metrics_line(line: bytes) -> StepMetrics | None:
    """The record of a line of any version; None if it is damaged."""
    try:
        return from_json(StepMetrics, json.loads(line))
    except (ValueError, TypeError):
        return None
