"""Gathers what scripts ask a loaded model, and gives it to the replicas that are free, in batches of like length.

requests ──▶ waiting ──the oldest, and those most like it──▶ a free replica ──▶ replies
                ▲──────────── those of a replica that was lost ──────┘
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import NamedTuple, Protocol

from sft.construction.teacher import LOCAL, Ask, TeacherError, TeacherId
from sft.endpoint.chat import ChatReply, ChatRequest, NoReply
from sft.errors import UserError

BATCH = 32
"""The most requests that a replica gets at once."""
AT_ONCE = 2 * BATCH
"""Requests under way for each replica: the next batch waits while one is answered."""
_GATHER_SECONDS = 0.02
"""Scripts that were told something ask again at once: a batch that is not full waits so long for them."""

Outcome = ChatReply | NoReply


class LostReplicaError(Exception):
    """A replica was lost before it answered; `is_final`: it will not come back."""

    def __init__(self, reason: str, is_final: bool) -> None:
        """`reason`: for people."""
        super().__init__(reason)
        self.is_final = is_final


class Replica(Protocol):
    """The model on one worker. Both raise `LostReplicaError` if it is lost; any other error ends all."""

    async def begin(self) -> None:
        """Load it where it is not loaded: at first, and after it was lost."""
        ...

    async def answers(self, requests: Sequence[ChatRequest]) -> Sequence[Outcome]:
        """Those to a batch, in its order."""
        ...


class _Waiting(NamedTuple):
    request: ChatRequest
    outcome: "asyncio.Future[Outcome]"

    @property
    def style(self) -> tuple[float, float]:
        return self.request.temperature, self.request.top_p

    @property
    def length(self) -> int:
        return sum(len(str(message.get("content", ""))) for message in self.request.messages)


class LocalTeacher:
    """`Teacher` that is loaded on workers."""

    def __init__(
        self,
        fingerprint: str,
        title: str,
        at_once: int,
        replicas: Callable[[], AbstractAsyncContextManager[Sequence[Replica]]],
    ) -> None:
        """Nothing is loaded yet.

        Args:
            fingerprint: of the model's files.
            title: its name in provenance.
            at_once: the most requests under way.
            replicas: loads the model on the workers, for as long as the context is open.
        """
        self.id, self.title, self.at_once = TeacherId(LOCAL, fingerprint), title, at_once
        self._replicas = replicas

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Ask]:
        """See `Teacher`."""
        gathering = _Gathering()
        async with self._replicas() as replicas:
            serving = [asyncio.create_task(gathering.serve(replica)) for replica in replicas]
            gathering.num_left = len(serving)
            try:
                yield gathering.ask
            finally:
                for task in serving:
                    task.cancel()
                    with suppress(asyncio.CancelledError):
                        await task


class _Gathering:
    def __init__(self) -> None:
        self.num_left = 0
        """Replicas that answer, or will again."""
        self._waiting: list[_Waiting] = []
        self._is_asked = asyncio.Event()
        self._error: Exception | None = None

    async def ask(self, request: ChatRequest) -> Outcome:
        if self._error is not None:
            raise self._error
        one = _Waiting(request, asyncio.get_running_loop().create_future())
        self._put([one])
        return await one.outcome

    async def serve(self, replica: Replica) -> None:
        """Give batches to a replica for as long as it is there."""
        batch: list[_Waiting] = []
        while self._error is None:
            try:
                await replica.begin()
                batch = await self._next_batch()
                outcomes = await replica.answers([one.request for one in batch])
            except LostReplicaError as error:
                self._put(batch)
                if error.is_final:
                    self.num_left -= 1
                    if not self.num_left:
                        self._end(TeacherError(str(error)))
                    return
            except Exception as error:  # whatever it is, whoever waits gets it
                self._put(batch)
                self._end(TeacherError(str(error)) if isinstance(error, UserError) else error)
                return
            else:
                for one, outcome in zip(batch, outcomes, strict=True):
                    if not one.outcome.done():
                        one.outcome.set_result(outcome)
            batch = []

    async def _next_batch(self) -> list[_Waiting]:
        batch: list[_Waiting] = []
        while not batch:
            await self._is_asked.wait()
            if len(self._waiting) < BATCH:
                await asyncio.sleep(_GATHER_SECONDS)
            batch = self._take()  # another replica may have taken all
        return batch

    def _put(self, more: Sequence[_Waiting]) -> None:
        self._waiting += more
        self._is_asked.set()

    def _take(self) -> list[_Waiting]:
        """The request that has waited longest, and those that are drawn as it is and have the lengths most like it."""
        if not self._waiting:
            return []
        oldest = self._waiting[0]
        alike = [one for one in self._waiting if one.style == oldest.style]
        alike.sort(key=lambda one: abs(one.length - oldest.length))
        batch = alike[:BATCH]
        chosen = set(map(id, batch))
        self._waiting = [one for one in self._waiting if id(one) not in chosen]
        if not self._waiting:
            self._is_asked.clear()
        return batch

    def _end(self, error: Exception) -> None:
        self._error = error
        for one in self._waiting:
            if not one.outcome.done():
                one.outcome.set_exception(error)
        self._waiting.clear()
