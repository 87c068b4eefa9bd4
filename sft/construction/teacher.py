"""Who is asked to make records: a served model, or one that is loaded on the workers."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import NamedTuple, Protocol

from sft.endpoint.chat import ChatReply, ChatRequest, NoReply
from sft.endpoint.client import EndpointClient
from sft.errors import UserError

Ask = Callable[[ChatRequest], Awaitable[ChatReply | NoReply]]
"""Asks once. It raises a `UserError` where nothing more can be asked of this teacher."""


class TeacherError(UserError):
    """No more can be asked of a local model. The text says why and what to do."""


class TeacherId(NamedTuple):
    """What a request is asked of, as the log names it: two with the same id give the same answers."""

    url: str
    """The address of its server; `LOCAL` for a model that is loaded."""
    model: str
    """Its name there; the fingerprint of its files."""


LOCAL = "local"


class Teacher(Protocol):
    """Is asked many things at once."""

    @property
    def id(self) -> TeacherId:
        """In the log."""
        ...

    @property
    def title(self) -> str:
        """In the provenance of a record."""
        ...

    @property
    def at_once(self) -> int:
        """The most requests under way."""
        ...

    def opened(self) -> AbstractAsyncContextManager[Ask]:
        """What asks it, for as long as the context is open."""
        ...


class ServedTeacher:
    """`Teacher` behind an endpoint."""

    def __init__(self, client: EndpointClient, at_once: int) -> None:
        """`client` knows the name of the model."""
        self._client, self.at_once = client, at_once
        self.id = TeacherId(client.endpoint.url, client.endpoint.model)
        self.title = f"{self.id.model} at {self.id.url}" if self.id.model else self.id.url

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Ask]:
        """See `Teacher`."""
        async with self._client.asked() as ask:
            yield ask
