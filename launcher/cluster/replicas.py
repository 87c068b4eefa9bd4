"""Replicas of what computes and keeps nothing, one on each of a job's workers: who is free gets the next part.

One worker without a cluster needs no Ray: this process does the work then.

parts ──▶ replica 0 ──▶ results, as they come
      └─▶ replica 1 ──▶
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import ray
from rich.console import Console

from launcher.cluster.connection import ray_session
from launcher.cluster.ray_words import in_a_sentence
from sft.errors import TrainingError, UserError
from sft.job_config import ClusterConfig
from sft.printable import counted

_OBJECT_STORE_BYTES = 200 * 1024**2

_MAX_RETRIES = 5
"""Of a replica whose process or node died: it is made again, and asked again."""

Part = TypeVar("Part")


@contextmanager
def workers_connected(cluster: ClusterConfig, console: Console) -> Iterator[bool]:
    """While open, replicas can be made; yields False where this process is the only worker, and Ray is not needed.

    Raises:
        UserError: the cluster cannot be reached.
    """
    num_workers = cluster.max_workers
    if num_workers == 1 and not os.environ.get("RAY_ADDRESS"):
        yield False
        return
    cpus, gpus = num_workers * cluster.cpus_per_worker, int(num_workers * cluster.gpus_per_worker)
    with ray_session(cpus, gpus, _OBJECT_STORE_BYTES) as session:
        console.print(f"{counted(num_workers, 'replica')} on {session.where}", highlight=False)
        yield True


@contextmanager
def replicas_of(
    cluster: ClusterConfig, replica: type, arguments: Callable[[int, int], Sequence[Any]]
) -> Iterator[list[Any]]:
    """The replicas, for as long as the context is open.

    Args:
        cluster: how many workers, and what each has.
        replica: its class.
        arguments: from a worker's rank, and their number, to those of the class.
    """
    make: Any = ray.remote(
        num_cpus=cluster.cpus_per_worker,
        num_gpus=cluster.gpus_per_worker,
        max_restarts=_MAX_RETRIES,
        max_task_retries=_MAX_RETRIES,
    )(replica)
    size = cluster.max_workers
    replicas: list[Any] = [make.remote(*arguments(rank, size)) for rank in range(size)]
    try:
        yield replicas
    finally:
        for one in replicas:
            ray.kill(one)


def dealt(replicas: Sequence[Any], method: str, parts: Iterable[Part], what: str) -> Iterator[tuple[Part, Any]]:
    """Each part with its result, in the order in which they come.

    Args:
        replicas: see `replicas_of`.
        method: is called with a part.
        parts: are drawn one by one, each when a replica is free.
        what: is done, in words, such as "models were measured".

    Raises:
        UserError: a replica raises it.
        TrainingError: the workers are lost.
    """
    left = iter(parts)
    under_way: dict[Any, tuple[Any, Part]] = {}

    def give(replica: Any) -> None:
        for part in left:
            under_way[getattr(replica, method).remote(part)] = replica, part
            return

    for replica in replicas:
        give(replica)
    while under_way:
        [done], _ = ray.wait([*under_way], num_returns=1)
        replica, part = under_way.pop(done)
        [result] = results([done], what)
        give(replica)
        yield part, result


def results(references: Sequence[Any], what: str) -> Iterator[Any]:
    """The results of calls, in their order; raises as `dealt` does."""
    try:
        yield from ray.get(list(references))
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, UserError):
            raise UserError(str(error.cause)) from None
        raise
    except ray.exceptions.RayError as error:
        raise TrainingError(
            f"Workers were lost while {what}: {in_a_sentence(error)}. The same command goes on with what is there."
        ) from error
