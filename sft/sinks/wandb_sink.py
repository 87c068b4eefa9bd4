"""A run in Weights & Biases. Without a network (`WANDB_MODE=offline`) it is kept in the run folder, for `wandb sync`.

W&B cannot replace rows: `global_step` identifies them, and none is sent twice.
"""

import uuid
from collections.abc import Sequence
from contextlib import suppress

import wandb

from sft.config_logging import LoggingConfig
from sft.sinks.sink import End, Point, Purpose


class WandbSink:
    """One run in W&B for a run here, across all its starts."""

    replaces = False

    def __init__(self, purpose: Purpose) -> None:
        """See `Sink`."""
        assert purpose.logging.wandb is not None
        self.id = purpose.id or uuid.uuid4().hex[:16]
        # W&B gets nothing of this machine that may hold a secret: no output, no code, no address of a repository.
        settings = wandb.Settings(console="off", disable_git=True, disable_code=True, save_code=False)
        self._run = wandb.init(
            entity=purpose.logging.wandb.entity,
            project=purpose.logging.wandb.project,
            tags=purpose.logging.wandb.tags,
            name=purpose.name,
            id=self.id,
            resume="allow",
            dir=str(purpose.folder),
            config=dict(purpose.config),
            settings=settings,
        )
        self.where = self._run.url or str(purpose.folder)
        # Not W&B's own step, which may only grow: an evaluation may be read after later steps.
        self._run.define_metric("global_step", hidden=True)
        self._run.define_metric("*", step_metric="global_step")

    @staticmethod
    def destination(logging: LoggingConfig) -> str:
        """See `Sink`."""
        assert logging.wandb is not None
        return f"{logging.wandb.entity or ''}/{logging.wandb.project}"

    def add(self, points: Sequence[Point]) -> None:
        """See `Sink`."""
        for point in points:
            self._run.log({"global_step": point.step, "stage": point.stage, **point.values})

    def close(self, end: End) -> None:
        """See `Sink`."""
        self._run.finish(exit_code=1 if end == "failed" else 0)
        # The interpreter's exit must not wait for W&B's service.
        with suppress(Exception):
            wandb.teardown()
