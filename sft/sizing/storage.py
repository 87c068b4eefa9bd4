"""The most that a run has on disk: checkpoints, models, token store."""

from collections.abc import Sequence
from typing import NamedTuple

from sft.cadence import cadence_of_saves
from sft.config import DTYPE_BYTES, SftConfig, StageConfig
from sft.optimizers import state_bytes
from sft.sizing.model_shape import ModelShape


class Storage(NamedTuple):
    """Sizes in bytes, and how many there are of each."""

    checkpoint: int
    """One checkpoint: a float32 copy of every parameter, and the optimizer's state (of the largest optimizer)."""
    num_checkpoints: int
    """At the same time: the newest of each stage, those that are kept forever, and the one being written."""
    model: int
    num_models: int
    """One at the end of each stage, and perhaps another one that was the best."""
    token_store: int | None
    """None if `sft prepare` has not made it."""

    @property
    def total(self) -> int:
        """Everything that is known."""
        return self.checkpoint * self.num_checkpoints + self.model * self.num_models + (self.token_store or 0)


def plan_storage(
    config: SftConfig, shape: ModelShape, num_steps: Sequence[int | None], token_store: int | None
) -> Storage:
    """The most that the run has on disk.

    Args:
        config: the run.
        shape: its model.
        num_steps: steps of each stage. If None, or if checkpoints are saved by the clock, only the newest ones count.
        token_store: bytes of the token store, if it is there.
    """
    num_checkpoints, earlier, newest = 0, 0, config.checkpoint.keep_last
    for stage, steps in zip(config.stages, num_steps, strict=True):
        # An older one is deleted only after a newer one is there: until then there is one more.
        num_checkpoints = max(num_checkpoints, earlier + _num_kept(config, stage, steps, newest + 1))
        if config.checkpoint.keep_stage_ends:
            earlier += _num_kept(config, stage, steps, newest)
    model_bytes = DTYPE_BYTES[config.model.dtype]
    return Storage(
        max(state_bytes(stage.optimizer.name) for stage in config.stages) * shape.num_parameters,
        num_checkpoints,
        model_bytes * shape.num_held,
        len(config.stages) * (1 if config.checkpoint.best is None else 2),
        token_store,
    )


def _num_kept(config: SftConfig, stage: StageConfig, num_steps: int | None, num_newest: int) -> int:
    """Checkpoints of one stage at its end: the newest, and older ones that are kept forever."""
    checkpoint = config.checkpoint
    if num_steps is None or checkpoint.every_minutes is not None:
        return num_newest + int(checkpoint.best is not None)
    saved = [*cadence_of_saves(config, num_steps, stage.budget.epochs).due_steps(num_steps), num_steps]
    forever = checkpoint.keep_every_steps
    older = [step for step in saved[:-num_newest] if forever and step % forever == 0]
    # The best step may be any of the older ones.
    num_best = int(checkpoint.best is not None and len(older) < len(saved[:-num_newest]))
    return len(saved[-num_newest:]) + len(older) + num_best
