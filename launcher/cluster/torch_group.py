"""The process group of torch as Ray Train makes it, but ended otherwise.

Ray Train destroys the group of a failed attempt while some ranks are still in a step: there it makes errors that look
like the program's, and with NCCL it waits for kernels whose peers never come. Here each rank says that it is alive, and
that its group will be ended; then Ray ends the processes, and the group with them. It is destroyed where all have
finished.
"""

import logging
from typing import Any

import ray
from ray.train.torch import TorchConfig
from ray.train.torch.config import _TorchBackend

from sft.training.attempt import Attempt

_ANSWER_SECONDS = 5.0
"""A rank that is stopped, or whose node is lost, does not answer at all."""

_logger = logging.getLogger(__name__)

_user: Attempt | None = None
"""Of this process, if it is a worker's: its attempt, until that has ended well."""


def group_is_used_by(attempt: Attempt | None) -> None:
    """Said by a worker before it trains, and when that has ended well."""
    global _user
    _user = attempt


def release_group() -> bool:
    """Runs in the main thread of a worker: says that its group will be ended now; whether it has not finished."""
    attempt = _user
    if attempt is not None:
        attempt.release()
    return attempt is not None


class TorchGroup(_TorchBackend):
    """Makes and ends it."""

    def on_shutdown(self, worker_group: Any, backend_config: Any) -> None:
        """Called by the controller before it ends the workers, whatever became of them."""
        asked = worker_group.execute_async(release_group)
        answered, silent = ray.wait(asked, num_returns=len(asked), timeout=_ANSWER_SECONDS)
        if silent or any(_was_training(reference) for reference in answered):
            _logger.info("the group is left to the end of its processes")
            return
        super().on_shutdown(worker_group, backend_config)


class TorchGroupConfig(TorchConfig):
    """Ray Train's config of a group that is a `TorchGroup`."""

    @property
    def backend_cls(self) -> type[TorchGroup]:
        """Asked for by Ray Train."""
        return TorchGroup


def _was_training(reference: Any) -> bool:
    try:
        return bool(ray.get(reference))
    except ray.exceptions.RayError:
        return True  # it is dead, so the group is not whole
