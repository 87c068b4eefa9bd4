"""What is recorded of each step: a closed list of names, each with its unit. One JSON line for each update, by rank 0.

Tokens are counted in three ways and never just called tokens where it matters: supervised tokens are in the loss,
tokens are real ones, slots include padding (of which packs as they are fed have none).
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
    """How long training waited, before this step, for a checkpoint: its copy, and the end of the save before."""
    peak_memory_gib: float
    """GiB (1024³ bytes) of rank 0, in this stage so far: of tensors on the GPU, or of the process without one."""
    attempt: int
    """How many times the job had been started when this was written."""
    time: float
    """Unix time in seconds."""
    mfu: float | None = None
    """Model FLOPs utilisation, of 1 (see `sft.sizing.flops`); None on a CPU, and on a GPU that is not known."""
    slowest_rank: int = 0
    """The one that computed slowest, by a layer's forward pass (see `sft.engine.layer_clock`)."""
    slowdown: float = 1.0
    """Its time for a token over that of the median rank."""
    peak_resident_gib: float | None = None
    """The same of the process, also where there is a GPU; None where it was not yet recorded."""
    peak_reserved_gib: float | None = None
    """The same of what torch has reserved of the GPU; None on a CPU."""

    @property
    def supervised_tokens_per_second(self) -> float:
        """Tokens in the loss, by wall time, over all ranks."""
        return self.num_supervised_tokens / self.seconds if self.seconds > 0 else math.nan

    @property
    def tokens_per_second(self) -> float:
        """Real tokens, by wall time, over all ranks."""
        return self.num_tokens / self.seconds if self.seconds > 0 else math.nan


def append_metrics(path: Path, metrics: StepMetrics) -> None:
    """Add a line to the file."""
    append_line(path, asdict(metrics))


def read_metrics_line(line: bytes) -> StepMetrics | None:
    """The record of a line, of whichever version; None where it is damaged."""
    try:
        return from_json(StepMetrics, json.loads(line))
    except (ValueError, TypeError):
        return None
