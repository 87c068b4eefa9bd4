"""Asks a server of OpenAI's chat completions many things at once: bounded in number, size and time.

    requests ─▶ at most `at_once` under way ─▶ `done` with each reply, or with the reason why there is none

A request in vain costs itself. What would be the same for all of them ends it: a wrong key, an unknown model, a limit
of the rate that does not pass, many in vain in a row.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any

from sft.endpoint.chat import ChatReply, ChatRequest, NoReply, ReplyError, no_reply, read_models
from sft.endpoint.completion import Completion, CompletionRequest
from sft.endpoint.connection import (
    TRIES_OF_BODIES,
    Coming,
    Connection,
    CutOffError,
    LateError,
    NoAnswerError,
    StatusError,
    UnreachedError,
    connected,
    sent_headers,
)
from sft.endpoint.endpoint import USUAL_KEY, Endpoint, EndpointError, Patience

Done = Callable[[ChatRequest, ChatReply | NoReply], None]
"""Is given each outcome as soon as it is there."""
Completed = Callable[[CompletionRequest, Completion | NoReply], None]
"""The same for completions."""

_Request = ChatRequest | CompletionRequest
_Outcome = ChatReply | Completion | NoReply

_CHAT, _COMPLETIONS, _MODELS = "/chat/completions", "/completions", "/models"
_REFUSED = 400, 422
"""What a server answers that does not take a request as it is."""
_SHOWN_MODELS = 12


class EndpointClient:
    """Asks one endpoint. For one thread at a time."""

    def __init__(self, endpoint: Endpoint, patience: Patience | None = None) -> None:
        """Nothing is asked yet.

        Raises:
            EndpointError: the key is missing or none.
        """
        sent_headers(endpoint)
        self.endpoint = endpoint
        self._patience = patience or Patience()
        self._refused = set[str]()
        """Schemas that the server cannot hold an answer to; they are asked for in words alone."""
        self._num_in_vain = 0
        self._ended: EndpointError | None = None

    @property
    def at_once(self) -> int:
        """The most requests under way."""
        return self._patience.at_once

    def check(self) -> Endpoint:
        """The endpoint with the name of its model, after a look at what the server has.

        Raises:
            EndpointError: nothing answers there, the key is refused, or it has no model of this name.
        """
        models = asyncio.run(self._models())
        url, model = self.endpoint.url, self.endpoint.model
        if not model and len(models) != 1:
            there = f"The server has {_listed(models)}" if models else "The server does not say which models it has"
            raise EndpointError(f"endpoint: {url}: {there}. Name the model to ask.")
        if model and models and model not in models:
            raise EndpointError(f"endpoint: {url} has no model {model!r}. It has {_listed(models)}.")
        self.endpoint = Endpoint(url, model or models[0], self.endpoint.api_key_env)
        return self.endpoint

    def chat_all(self, requests: Iterable[ChatRequest], done: Done, max_seconds: float | None = None) -> None:
        """Ask them all, many at once; `done` is called in this thread.

        Args:
            requests: drawn from only as they are sent.
            done: gets each outcome.
            max_seconds: when they have passed, those that have no answer yet are left.

        Raises:
            EndpointError: no more can be asked.
        """
        asyncio.run(self._ask_all(requests, done, max_seconds))

    @asynccontextmanager
    async def asked(self) -> AsyncIterator[Callable[[ChatRequest], Awaitable[ChatReply | NoReply]]]:
        """What asks one request of many, for as long as the context is open; whoever calls it bounds their number.

        It raises an `EndpointError` where no more can be asked; what was asked before has its outcome even so.
        """
        self._num_in_vain, self._ended = 0, None
        async with connected(self.endpoint, self._patience) as connection:

            async def ask(request: ChatRequest) -> ChatReply | NoReply:
                if self._ended is not None:
                    raise self._ended
                outcome = await self._outcome(connection, request)
                self._ended = self._count(outcome)
                assert not isinstance(outcome, Completion)
                return outcome

            yield ask

    def complete_all(self, requests: Iterable[CompletionRequest], done: Completed) -> None:
        """As `chat_all`, from token ids."""
        asyncio.run(self._ask_all(requests, done, None))

    async def _ask_all(
        self, requests: Iterable[Any], done: Callable[[Any, Any], None], max_seconds: float | None
    ) -> None:
        self._num_in_vain = 0
        waiting = iter(requests)

        async def ask_in_turn(connection: Connection) -> None:
            for request in waiting:  # the others draw from it, too
                outcome = await self._outcome(connection, request)
                done(request, outcome)
                if ended := self._count(outcome):
                    raise ended

        ends = None if max_seconds is None else time.monotonic() + max_seconds
        try:
            async with (
                connected(self.endpoint, self._patience) as connection,
                asyncio.timeout(max_seconds),
                asyncio.TaskGroup() as group,
            ):
                for _ in range(self._patience.at_once):
                    group.create_task(ask_in_turn(connection))
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None
        except TimeoutError:
            if ends is None or time.monotonic() < ends:
                raise

    def _count(self, outcome: _Outcome) -> EndpointError | None:
        """Count what is in vain in a row; why no more is asked, if that is too much.

        A server that counts the tokens of an answer of no use is there: it has answered this one request so.
        """
        if not isinstance(outcome, NoReply) or outcome.is_counted:
            self._num_in_vain = 0
            return None
        self._num_in_vain += 1
        if self._num_in_vain < self._patience.most_in_vain:
            return None
        return EndpointError(
            f"endpoint: {self.endpoint.url}: {self._num_in_vain} requests in a row got no answer; the last one: "
            f"{outcome.reason}. See what the server's log says, and give the same command again: what was "
            f"answered is kept."
        )

    async def _outcome(self, connection: Connection, request: _Request) -> _Outcome:
        patience, coming = self._patience, Coming()
        try:
            async with asyncio.timeout(patience.seconds_in_all):
                await self._ask(connection, request, coming)
            return request.read(bytes(coming.body))
        except (ReplyError, UnreachedError, CutOffError) as error:
            reason = str(error)
        except LateError:
            reason = f"no answer within {patience.seconds:g} seconds, in {_tries(patience)}"
        except TimeoutError:
            reason = f"no answer within {patience.seconds_in_all:g} seconds"
        except StatusError as error:
            if error.status == 404:
                raise await self._unknown(connection, error) from None
            if ended := self._end_of_all(error):
                raise ended from None
            reason = f"the server answers with status {error.status}: {error}"
        return no_reply(reason, bytes(coming.body) if coming.has_begun else None)

    async def _ask(self, connection: Connection, request: _Request, coming: Coming) -> None:
        model, retries = self.endpoint.model, self._patience.retries
        if not isinstance(request, ChatRequest):
            await connection.bring(_COMPLETIONS, {"model": model, **request.content()}, coming, retries)
            return
        schema = json.dumps(request.schema) if request.schema else ""
        structured = bool(schema) and schema not in self._refused
        try:
            await connection.bring(_CHAT, {"model": model, **request.content(structured)}, coming, retries)
        except StatusError as error:
            if not structured or error.status not in _REFUSED:
                raise
            await connection.bring(_CHAT, {"model": model, **request.content(structured=False)}, coming, retries)
            self._refused.add(schema)  # it was the schema that the server refused, not this request

    async def _models(self) -> list[str]:
        url = self.endpoint.url
        async with connected(self.endpoint, self._patience) as connection:
            try:
                async with asyncio.timeout(self._patience.seconds_in_all):
                    return await self._listed(connection)
            except (TimeoutError, LateError):
                raise EndpointError(f"endpoint: {url} does not answer in time. Is the server still starting?") from None
            except UnreachedError as error:
                raise EndpointError(
                    f"endpoint: nothing answers at {url}: {error}. Start the server, or correct the address."
                ) from None
            except StatusError as error:
                if ended := self._end_of_all(error):
                    raise ended from None
                return []  # a server that answers, and does not list its models
            except (ReplyError, CutOffError):
                return []

    async def _listed(self, connection: Connection) -> list[str]:
        coming = Coming()
        await connection.bring(_MODELS, None, coming, min(TRIES_OF_BODIES - 1, self._patience.retries))
        return read_models(bytes(coming.body))

    async def _unknown(self, connection: Connection, error: StatusError) -> EndpointError:
        try:
            models = await self._listed(connection)
        except (NoAnswerError, ReplyError):
            models = []
        there = f"It has {_listed(models)}." if models else "Does the address end as the server says, such as in /v1?"
        return EndpointError(
            f"endpoint: {self.endpoint.url} answers with status 404 when {self.endpoint.model!r} is asked: {error}. "
            f"{there}"
        )

    def _end_of_all(self, error: StatusError) -> EndpointError | None:
        """What would be the same for the other requests."""
        url, status = self.endpoint.url, error.status
        if status in (401, 403):
            name = self.endpoint.api_key_env or USUAL_KEY
            given = "the key of" if self.endpoint.key() else "no key: set"
            return EndpointError(f"endpoint: {url} refuses (status {status}) {given} {name}: {error}")
        if status == 429:
            return EndpointError(
                f"endpoint: {url} still limits the rate (status 429) after {_tries(self._patience)}: "
                f"{error}. Give the same command again later: what was answered is kept."
            )
        if 300 <= status < 400:
            return EndpointError(
                f"endpoint: {url} sends to another address (status {status}), which is not followed. Give that address."
            )
        return None


def _tries(patience: Patience) -> str:
    return "1 try" if not patience.retries else f"{patience.retries + 1} tries"


def _listed(models: list[str]) -> str:
    more = f" and {len(models) - _SHOWN_MODELS} more" if len(models) > _SHOWN_MODELS else ""
    return ", ".join(models[:_SHOWN_MODELS]) + more
