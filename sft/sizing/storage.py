"""What a run has on disk when it has the most: checkpoints, models, token store."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from sft.config import SftConfig
from sft.sizing.memory import OPTIMIZER_BYTES
from sft.sizing.model_shape import ModelShape


class Storage(NamedTuple):
    """Bytes, and how often they are there."""

    checkpoint: int
    """One: float32 copy and AdamW's two means of every parameter."""
    num_checkpoints: int
    """At one time: the newest of each stage, those that are kept for good, and the one that is being written."""
    model: int
    num_models: int
    token_store: int | None
    """None where `sft prepare` has not made it."""

    @property
    def total(self) -> int:
        """All that is known."""
        return self.checkpoint * self.num_checkpoints + self.model * self.num_models + (self.token_store or 0)


def plan_storage(
    config: SftConfig, shape: ModelShape, num_steps: Sequence[int | None], token_store: int | None
) -> Storage:
    """What the run has on disk at the end of its last stage.

    Args:
        config: the run.
        shape: its model.
        num_steps: of each stage; None where it is not known, and then as many checkpoints as may be kept are counted.
        token_store: bytes of the token store, where it is there.
    """
    last = len(config.stages) - 1
    num_checkpoints = sum(
        _num_checkpoints(config, steps, is_running=i == last)
        for i, steps in enumerate(num_steps)
        if i == last or config.checkpoint.keep_stage_ends
    )
    model_bytes = 2 if config.model.dtype == "bfloat16" else 4
    return Storage(
        OPTIMIZER_BYTES * shape.num_parameters,
        num_checkpoints,
        model_bytes * shape.num_parameters,
        len(config.stages),
        token_store,
    )


def _num_checkpoints(config: SftConfig, num_steps: int | None, *, is_running: bool) -> int:
    """Of one stage. An older one is deleted after a newer one is there: until then there is one more."""
    checkpoint = config.checkpoint
    newest = checkpoint.keep_last + (1 if is_running else 0)
    if num_steps is None:
        return newest
    if checkpoint.every_minutes is not None:
        num_saves = num_steps
    else:
        num_saves = 1 + (math.ceil(num_steps / checkpoint.every_steps) - 1 if checkpoint.every_steps else 0)
    num_kept_for_good = 0
    if checkpoint.keep_every_steps and checkpoint.every_steps:
        num_kept_for_good = num_steps // math.lcm(checkpoint.keep_every_steps, checkpoint.every_steps)
    return min(num_saves, newest + num_kept_for_good)
