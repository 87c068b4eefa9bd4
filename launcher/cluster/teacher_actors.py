"""Local teachers on the workers: a replica of the model on each, on a Ray cluster or in this process.

Teachers share the workers. One worker without a cluster needs no Ray: models are loaded here then.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, suppress
from functools import partial
from typing import Any

import ray

from launcher.cluster.ray_words import in_a_sentence
from sft.chat.batched import BatchedModel
from sft.config import SftConfig
from sft.construction.local_teacher import LostReplicaError, Outcome, Replica
from sft.endpoint.chat import ChatRequest
from sft.errors import UserError
from sft.job_config import ClusterConfig
from sft.printable import counted
from sft.training.process import quiet_third_parties

_MOST_LOST = 5
"""So often a replica is made anew."""
_PLACE_SECONDS = 600.0
"""How long a replica waits for a place on the cluster."""

OpenReplicas = Callable[[SftConfig, int], AbstractAsyncContextManager[Sequence[Replica]]]
"""Loads the model of a config on so many workers, for as long as the context is open."""


@contextmanager
def workers_of_teachers(cluster: ClusterConfig, connect: Callable[[], bool]) -> Iterator[OpenReplicas]:
    """What loads teachers.

    Args:
        cluster: the workers.
        connect: to them; called when the first one is asked (see `launcher.cluster.replicas.workers_connected`).
    """
    device = "cuda:0" if cluster.gpus_per_worker else "cpu"
    with ThreadPoolExecutor(1, "teacher") as thread:

        def open_replicas(config: SftConfig, num_replicas: int) -> AbstractAsyncContextManager[Sequence[Replica]]:
            if connect():
                return _on_ray(cluster, device, config, num_replicas)
            return _here(thread, device, config, num_replicas)

        yield open_replicas


@asynccontextmanager
async def _here(
    thread: ThreadPoolExecutor, device: str, config: SftConfig, num_replicas: int
) -> AsyncIterator[Sequence[Replica]]:
    assert num_replicas == 1
    replica = _Here(thread, config, device)
    try:
        yield [replica]
    finally:
        replica.is_over = True


class _Here:
    """`Replica` in a thread of this process, which all teachers share."""

    def __init__(self, thread: ThreadPoolExecutor, config: SftConfig, device: str) -> None:
        self._thread, self._load = thread, partial(BatchedModel, config, device)
        self._model: BatchedModel | None = None
        self.is_over = False
        """Nobody waits for what is being written: it ends with the next token."""

    async def begin(self) -> None:
        if self._model is None:
            self._model = await asyncio.get_running_loop().run_in_executor(self._thread, self._load)

    async def answers(self, requests: Sequence[ChatRequest]) -> Sequence[Outcome]:
        assert self._model is not None
        return await asyncio.get_running_loop().run_in_executor(
            self._thread, self._model.answers, requests, self._end_if_over
        )

    def _end_if_over(self) -> None:
        if self.is_over:
            raise asyncio.CancelledError


@asynccontextmanager
async def _on_ray(
    cluster: ClusterConfig, device: str, config: SftConfig, num_replicas: int
) -> AsyncIterator[Sequence[Replica]]:
    make = ray.remote(num_cpus=cluster.cpus_per_worker, num_gpus=cluster.gpus_per_worker)(_Actor)
    about = config.model_dump(mode="json", by_alias=True), device
    replicas = [_OnRay(partial(make.remote, *about)) for _ in range(num_replicas)]
    try:
        yield replicas
    finally:
        for replica in replicas:
            replica.end()


class _Actor:
    """A model on one worker. It keeps nothing, so a lost one is simply made again."""

    def __init__(self, config: dict[str, Any], device: str) -> None:
        """Nothing is loaded yet: errors of loading are to be told as they are."""
        self._config, self._device = config, device

    def load(self) -> None:
        """Load it."""
        quiet_third_parties()
        self._model = BatchedModel(SftConfig.model_validate(self._config), self._device)

    def answers(self, requests: Sequence[ChatRequest]) -> list[Outcome]:
        """Those of a batch."""
        return self._model.answers(requests)


class _OnRay:
    """`Replica` in an actor."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make, self._num_lost = make, 0
        self._actor: Any = None

    async def begin(self) -> None:
        if self._actor is None:
            actor = self._actor = self._make()
            try:
                await asyncio.wait_for(self._result(actor.__ray_ready__.remote()), _PLACE_SECONDS)
            except TimeoutError:
                self.end()
                raise LostReplicaError(
                    f"construct.teacher: the Ray cluster has had no place for a worker for {_PLACE_SECONDS:.0f} "
                    f"seconds (cluster.cpus_per_worker, cluster.gpus_per_worker). What was answered is kept: give the "
                    f"same command when there is room.",
                    is_final=True,
                ) from None
            await self._result(actor.load.remote())

    async def answers(self, requests: Sequence[ChatRequest]) -> Sequence[Outcome]:
        assert self._actor is not None
        outcomes: Sequence[Outcome] = await self._result(self._actor.answers.remote([*requests]))
        return outcomes

    def end(self) -> None:
        if self._actor is not None:
            with suppress(ray.exceptions.RayError):
                ray.kill(self._actor)
            self._actor = None

    async def _result(self, reference: Any) -> Any:
        try:
            return await reference
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, UserError):
                raise UserError(str(error.cause)) from None
            raise
        except ray.exceptions.RayError as error:
            self.end()
            self._num_lost += 1
            raise LostReplicaError(
                f"construct.teacher: workers were lost, {counted(self._num_lost, 'time')} each: "
                f"{in_a_sentence(error)}. The same command goes on with what was answered.",
                is_final=self._num_lost > _MOST_LOST,
            ) from error
