"""The torch process group of the ranks under Ray Train: made as torchrun does, ended in our own way.

Ray Train's own backend destroys the group of a failed attempt while some ranks are still in a step. That causes errors
that look like the program's, and with NCCL it waits for kernels whose peers never come. Here each rank first records
that it is alive and that its group will be ended. Then Ray ends the processes, and the group ends with them. The group
is destroyed only if all ranks have finished.

Nor does the controller import torch here, for which the workers would wait: only they make the group.
"""

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import ray
import ray.train
from ray.train._internal.utils import get_address_and_port
from ray.train.backend import Backend, BackendConfig

from sft.training.worker_variables import set_variables

_ANSWER_SECONDS = 5.0
"""A rank that is stopped, or whose node is lost, does not answer at all."""

_LEAVE_SECONDS = 30.0

_logger = logging.getLogger(__name__)

_release: Callable[[], None] | None = None
"""Of the attempt of this process, if it is a worker, until that has ended well."""


def group_is_used(release: Callable[[], None] | None) -> None:
    """A worker calls this before it trains, and with None when that has ended well.

    `release` records that the group is ended; any thread may call it.
    """
    global _release
    _release = release


def release_group() -> bool:
    """Record that this worker's group will be ended now; returns whether the worker has not finished.

    Runs in the worker's main thread.
    """
    release = _release
    if release is not None:
        release()
    return release is not None


def _join(address: str, port: int, backend: str, timeout_s: int) -> None:
    """Join the group, with the variables of torchrun, which DeepSpeed reads too. Runs in a worker."""
    from sft.ranks.process_group import join_group  # noqa: PLC0415  (the controller imports this module)

    context = ray.train.get_context()
    os.environ |= {
        "MASTER_ADDR": address,
        "MASTER_PORT": str(port),
        "RANK": str(context.get_world_rank()),
        "WORLD_SIZE": str(context.get_world_size()),
        "LOCAL_RANK": str(context.get_local_rank()),
        "LOCAL_WORLD_SIZE": str(context.get_local_world_size()),
        "NODE_RANK": str(context.get_node_rank()),
    }
    join_group(backend, timedelta(seconds=timeout_s))


def _leave() -> None:
    from sft.ranks.process_group import leave_group  # noqa: PLC0415  (see `_join`)

    leave_group()


class TorchGroup(Backend):
    """Makes and ends the process group."""

    share_cuda_visible_devices = True
    """NCCL's ranks of a node see each other's GPUs."""

    def on_start(self, worker_group: Any, backend_config: Any) -> None:
        """Called by the controller before the workers train: nothing has started CUDA or NCCL yet."""
        worker_group.execute(set_variables, deterministic=backend_config.deterministic)
        address, port = worker_group.execute_single(0, get_address_and_port)
        backend = "nccl" if worker_group.get_resources_per_worker().get("GPU", 0) else "gloo"
        worker_group.execute(_join, address, port, backend, backend_config.timeout_s)

    def on_shutdown(self, worker_group: Any, backend_config: Any) -> None:
        """Called by the controller before it ends the workers, whatever became of them."""
        asked = worker_group.execute_async(release_group)
        answered, silent = ray.wait(asked, num_returns=len(asked), timeout=_ANSWER_SECONDS)
        if silent or any(_was_training(reference) for reference in answered):
            _logger.info("the group is left to the end of its processes")
            return
        left = worker_group.execute_async(_leave)
        ray.wait(left, num_returns=len(left), timeout=_LEAVE_SECONDS)


@dataclass
class TorchGroupConfig(BackendConfig):
    """Ray Train's config of a group that is a `TorchGroup`."""

    timeout_s: int
    """Of its collectives."""
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
