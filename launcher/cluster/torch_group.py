"""The torch process group of Ray Train, ended in our own way.

Ray Train destroys the group of a failed attempt while some ranks are still in a step. That causes errors that look like
the program's, and with NCCL it waits for kernels whose peers never come. Here each rank first records that it is alive
and that its group will be ended. Then Ray ends the processes, and the group ends with them. The group is destroyed only
if all ranks have finished.
"""

import logging
from dataclasses import dataclass
from typing import Any

import ray
from ray.train.torch import TorchConfig
from ray.train.torch.config import _TorchBackend

from sft.training.attempt import Attempt
from sft.training.worker_variables import set_variables

_ANSWER_SECONDS = 5.0
"""A rank that is stopped, or whose node is lost, does not answer at all."""

_logger = logging.getLogger(__name__)

_user: Attempt | None = None
"""The attempt of this process, if it is a worker, until that has ended well."""


def group_is_used_by(attempt: Attempt | None) -> None:
    """A worker calls this before it trains, and with None when that has ended well."""
    global _user
    _user = attempt


def release_group() -> bool:
    """Record that this worker's group will be ended now; returns whether the worker has not finished.

    Runs in the worker's main thread.
    """
    attempt = _user
    if attempt is not None:
        attempt.release()
    return attempt is not None


class TorchGroup(_TorchBackend):
    """Makes and ends the process group."""

    def on_start(self, worker_group: Any, backend_config: Any) -> None:
        """Called by the controller before the workers train: nothing has started CUDA or NCCL yet."""
        worker_group.execute(set_variables, deterministic=backend_config.deterministic)
        super().on_start(worker_group, backend_config)

    def on_shutdown(self, worker_group: Any, backend_config: Any) -> None:
        """Called by the controller before it ends the workers, whatever became of them."""
        asked = worker_group.execute_async(release_group)
        answered, silent = ray.wait(asked, num_returns=len(asked), timeout=_ANSWER_SECONDS)
        if silent or any(_was_training(reference) for reference in answered):
            _logger.info("the group is left to the end of its processes")
            return
        super().on_shutdown(worker_group, backend_config)


@dataclass
class TorchGroupConfig(TorchConfig):
    """Ray Train's config of a group that is a `TorchGroup`."""

    deterministic: bool = False
    """`train.deterministic`."""

    @property
    def backend_cls(self) -> type[TorchGroup]:
        """Asked for by Ray Train."""
        return TorchGroup


def _was_training(reference: Any) -> bool:
    try:
        return bool(ray.get(reference))
    except ray.exceptions.RayError:
        return True  # the rank is dead, so the group is not whole
