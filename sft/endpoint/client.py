"""Asks a server many things at once, by OpenAI's client: bounded in number, size and time.

    requests ─▶ at most `at_once` under way ─▶ `done` with each reply, or with the reason why there is none

A request in vain costs itself. What would be the same for all of them ends it: a wrong key, an unknown model, a limit
of the rate that does not pass, many in vain in a row. Neither proxies of the environment nor redirects are followed:
texts and key go where the address says.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from sft.endpoint.chat import ChatReply, ChatRequest, NoReply, ReplyError, no_reply, quoted, read_models
from sft.endpoint.completion import Completion, CompletionRequest
from sft.endpoint.endpoint import USUAL_KEY, Endpoint, EndpointError, Patience, header_from
from sft.url_secrets import without_secrets

Done = Callable[[ChatRequest, ChatReply | NoReply], None]
"""Is given each outcome as soon as it is there."""
Completed = Callable[[CompletionRequest, Completion | NoReply], None]
"""The same for completions."""

_Request = ChatRequest | CompletionRequest
_Outcome = ChatReply | Completion | NoReply

_TRIES_OF_BODIES = 3
_CONNECT_SECONDS = 20.0
_SHOWN_MODELS = 12
_SENT_VARIABLES = "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"
"""OpenAI's client sends them, beside the key."""


class _CutOffError(Exception):
    """The connection ended in the middle of an answer."""


@dataclass(slots=True)
class _Coming:
    """What has come of an answer so far."""

    has_begun: bool = False
    """Whether a status of 200 came, in any try."""
    body: bytearray = field(default_factory=bytearray)


def check_client() -> None:
    """Refuse to go on where the package of the client is not installed.

    Raises:
        EndpointError: it is not.
    """
    _openai()


class EndpointClient:
    """Asks one endpoint. For one thread at a time."""

    def __init__(self, endpoint: Endpoint, patience: Patience | None = None) -> None:
        """Nothing is asked yet.

        Raises:
            EndpointError: the package is not installed, or the key is missing or none.
        """
        _openai()
        endpoint.key()
        for variable in _SENT_VARIABLES:
            header_from(variable)
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
        async with self._opened() as client:

            async def ask(request: ChatRequest) -> ChatReply | NoReply:
                if self._ended is not None:
                    raise self._ended
                outcome = await self._outcome(client, request)
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

        async def ask_in_turn(client: Any) -> None:
            for request in waiting:  # the others draw from it, too
                outcome = await self._outcome(client, request)
                done(request, outcome)
                if ended := self._count(outcome):
                    raise ended

        ends = None if max_seconds is None else time.monotonic() + max_seconds
        try:
            async with self._opened() as client, asyncio.timeout(max_seconds), asyncio.TaskGroup() as group:
                for _ in range(self._patience.at_once):
                    group.create_task(ask_in_turn(client))
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

    async def _outcome(self, client: Any, request: _Request) -> _Outcome:
        openai, patience, coming = _openai(), self._patience, _Coming()
        try:
            async with asyncio.timeout(patience.seconds_in_all):
                await self._ask(client, request, coming)
            return request.read(bytes(coming.body))
        except ReplyError as error:
            reason = str(error)
        except TimeoutError:
            reason = f"no answer within {patience.seconds_in_all:g} seconds"
        except _CutOffError:
            reason = "the connection ended in the middle of the answer"
        except openai.APITimeoutError:
            reason = f"no answer within {patience.seconds:g} seconds, in {_tries(patience)}"
        except openai.APIConnectionError as error:
            reason = _unreached(error)
        except openai.NotFoundError as error:
            raise await self._unknown(client, error) from None
        except openai.APIStatusError as error:
            if ended := self._end_of_all(error):
                raise ended from None
            reason = f"the server answers with status {error.status_code}: {_told(error)}"
        return no_reply(reason, bytes(coming.body) if coming.has_begun else None)

    async def _ask(self, client: Any, request: _Request, coming: "_Coming") -> None:
        openai = _openai()
        schema = json.dumps(request.schema) if isinstance(request, ChatRequest) and request.schema else ""
        structured = bool(schema) and schema not in self._refused
        try:
            await self._ask_in_one_form(client, request, structured, coming)
        except (openai.BadRequestError, openai.UnprocessableEntityError):
            if not structured:
                raise
            await self._ask_in_one_form(client, request, False, coming)
            self._refused.add(schema)  # it was the schema that the server refused, not this request

    async def _ask_in_one_form(self, client: Any, request: _Request, structured: bool, coming: "_Coming") -> None:
        """An answer that is cut off is asked for again."""
        asked, kind = request.content(), client.completions
        if isinstance(request, ChatRequest):
            # The package walks through all it knows by name, against its types: a third of its time.
            asked, kind = {"messages": (), "extra_body": request.content(structured)}, client.chat.completions
        num_left = _TRIES_OF_BODIES
        while True:
            num_left -= 1
            try:
                async with kind.with_streaming_response.create(model=self.endpoint.model, **asked) as response:
                    return await self._read(response, coming)
            except _CutOffError:
                if not num_left:
                    raise

    async def _read(self, response: Any, coming: "_Coming") -> None:
        most = self._patience.most_bytes
        coming.has_begun, coming.body = True, bytearray()
        try:
            async for part in response.iter_bytes():
                coming.body += part
                if len(coming.body) > most:
                    break
        except Exception as error:  # those of the package under OpenAI's, which differs between its versions
            raise _CutOffError from error
        if len(coming.body) > most:
            raise ReplyError(f"the answer is larger than {most:,} bytes")

    async def _models(self) -> list[str]:
        openai = _openai()
        async with self._opened() as client:
            try:
                async with asyncio.timeout(self._patience.seconds_in_all):
                    return await self._listed(client)
            except (TimeoutError, openai.APITimeoutError):
                raise EndpointError(
                    f"endpoint: {self.endpoint.url} does not answer in time. Is the server still starting?"
                ) from None
            except openai.APIConnectionError as error:
                raise EndpointError(
                    f"endpoint: nothing answers at {self.endpoint.url}: {_unreached(error)}. Start the server, or "
                    f"correct the address."
                ) from None
            except openai.APIStatusError as error:
                if ended := self._end_of_all(error):
                    raise ended from None
                return []  # a server that answers, and does not list its models
            except (ReplyError, _CutOffError):
                return []

    async def _listed(self, client: Any) -> list[str]:
        looking = client.with_options(max_retries=min(_TRIES_OF_BODIES - 1, self._patience.retries))
        async with looking.models.with_streaming_response.list() as response:
            coming = _Coming()
            await self._read(response, coming)
            return read_models(bytes(coming.body))

    async def _unknown(self, client: Any, error: Any) -> EndpointError:
        openai = _openai()
        try:
            models = await self._listed(client)
        except (openai.OpenAIError, ReplyError, _CutOffError):
            models = []
        there = f"It has {_listed(models)}." if models else "Does the address end as the server says, such as in /v1?"
        return EndpointError(
            f"endpoint: {self.endpoint.url} answers with status 404 when {self.endpoint.model!r} is asked: "
            f"{_told(error)}. {there}"
        )

    def _end_of_all(self, error: Any) -> EndpointError | None:
        """What would be the same for the other requests."""
        url, status = self.endpoint.url, error.status_code
        if status in (401, 403):
            name = self.endpoint.api_key_env or USUAL_KEY
            given = "the key of" if self.endpoint.key() else "no key: set"
            return EndpointError(f"endpoint: {url} refuses (status {status}) {given} {name}: {_told(error)}")
        if status == 429:
            return EndpointError(
                f"endpoint: {url} still limits the rate (status 429) after {_tries(self._patience)}: "
                f"{_told(error)}. Give the same command again later: what was answered is kept."
            )
        if 300 <= status < 400:
            return EndpointError(
                f"endpoint: {url} sends to another address (status {status}), which is not followed. Give that address."
            )
        return None

    @asynccontextmanager
    async def _opened(self) -> AsyncIterator[Any]:
        openai, patience = _openai(), self._patience
        key, http = (
            self.endpoint.key() or "none",
            openai.DefaultAsyncHttpxClient(trust_env=False, follow_redirects=False),
        )
        try:
            opened = openai.AsyncOpenAI(
                base_url=self.endpoint.url,
                api_key=key,
                max_retries=patience.retries,
                timeout=openai.Timeout(patience.seconds, connect=min(_CONNECT_SECONDS, patience.seconds)),
                http_client=http,
            )
        except Exception as error:  # of the package under OpenAI's, which differs between its versions
            raise EndpointError(f"endpoint: {self.endpoint.url} is no address of a server: {error}.") from None
        async with opened as client:
            yield client


def _openai() -> Any:
    """The package, which takes a second to import.

    Raises:
        EndpointError: it is not installed.
    """
    try:
        import openai  # noqa: PLC0415
    except ImportError:
        raise EndpointError(
            "endpoint: the package openai is not installed here. Install it with `pip install 'sft[endpoint]'`."
        ) from None
    return openai


def _tries(patience: Patience) -> str:
    return "1 try" if not patience.retries else f"{patience.retries + 1} tries"


def _told(error: Any) -> str:
    body = error.body
    return quoted(body["message"] if isinstance(body, dict) and "message" in body else body or error.message)


def _unreached(error: BaseException) -> str:
    """The reason under the client's own words."""
    cause = error.__cause__ or error
    return without_secrets(str(cause) or type(cause).__name__)


def _listed(models: list[str]) -> str:
    more = f" and {len(models) - _SHOWN_MODELS} more" if len(models) > _SHOWN_MODELS else ""
    return ", ".join(models[:_SHOWN_MODELS]) + more
