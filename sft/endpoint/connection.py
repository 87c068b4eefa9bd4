"""What is sent to a server over HTTP, and what comes back: again where the trouble may pass, and bounded in size.

    path, content ──Connection.bring──▶ the body of an answer with status 200, or a `NoAnswerError`

What a busy server (429), one in trouble (5xx) or none at all has lost is sent again after a pause, which doubles, or is
the one that the server asks for. An answer that breaks off is asked for again, too. Neither proxies of the environment
nor redirects are followed: texts and key go where the address says.
"""

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any

import aiohttp
from aiohttp import hdrs
from yarl import URL

from sft.endpoint.chat import ReplyError, quoted
from sft.endpoint.endpoint import Endpoint, EndpointError, Patience, header_from
from sft.schema import JsonObject
from sft.url_secrets import without_secrets

TRIES_OF_BODIES = 3
"""Of an answer that breaks off."""
_CONNECT_SECONDS = 20.0
_FIRST_PAUSE, _LONGEST_PAUSE, _LONGEST_ASKED_FOR = 0.5, 8.0, 120.0
_PASSING = 408, 409, 429
_MOST_ERROR_BYTES = 1 << 16
_SENT_VARIABLES = {"OPENAI_ORG_ID": "OpenAI-Organization", "OPENAI_PROJECT_ID": "OpenAI-Project"}
"""Of the environment; each with its header."""


class NoAnswerError(Exception):
    """There is no answer; the text is the reason."""


class UnreachedError(NoAnswerError):
    """The server was not reached, or has hung up."""


class LateError(NoAnswerError):
    """The server has sent nothing for too long."""


class CutOffError(NoAnswerError):
    """The connection ended in the middle of an answer."""


class StatusError(NoAnswerError):
    """The server answers with another status than 200; the text is what it says."""

    def __init__(self, status: int, told: str) -> None:
        super().__init__(told)
        self.status = status


@dataclass(slots=True)
class Coming:
    """What has come of an answer so far."""

    has_begun: bool = False
    """Whether a status of 200 came, in any try."""
    body: bytearray = field(default_factory=bytearray)


class Connection:
    """Open to one server; see `connected`."""

    def __init__(self, session: aiohttp.ClientSession, url: str, patience: Patience) -> None:
        self._session, self._url, self._patience = session, url.rstrip("/"), patience

    async def bring(self, path: str, content: JsonObject | None, coming: Coming, retries: int) -> None:
        """Have an answer come.

        Args:
            path: of what is asked, behind the address.
            content: is posted as JSON; None: nothing is, it is only read.
            coming: gets the body.
            retries: how often what may pass is tried again.

        Raises:
            NoAnswerError: there is none.
            ReplyError: it is too large.
        """
        data = None if content is None else json.dumps(content).encode()
        num_cut_off = num_failed = 0
        while True:
            pause = 0.0
            try:
                return await self._try(path, data, coming)
            except CutOffError:
                num_cut_off += 1
                if num_cut_off == TRIES_OF_BODIES:
                    raise
            except _PassingError as passing:
                if num_failed == retries:
                    raise passing.trouble from None
                pause = _pause(num_failed) if passing.pause is None else passing.pause
                num_failed += 1
            await asyncio.sleep(pause)

    async def _try(self, path: str, data: bytes | None, coming: Coming) -> None:
        try:
            method = hdrs.METH_GET if data is None else hdrs.METH_POST
            async with self._session.request(method, self._url + path, data=data, allow_redirects=False) as answer:
                if answer.status == 200:
                    return await self._read(answer, coming)
                trouble = StatusError(answer.status, await _told(answer))
                if answer.status not in _PASSING and answer.status < 500:
                    raise trouble
                raise _PassingError(trouble, _asked_pause(answer.headers))
        except aiohttp.ServerTimeoutError:
            raise _PassingError(LateError()) from None
        except (aiohttp.ClientError, OSError) as error:
            cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
            raise _PassingError(UnreachedError(without_secrets(str(cause) or type(cause).__name__))) from None

    async def _read(self, answer: aiohttp.ClientResponse, coming: Coming) -> None:
        most = self._patience.most_bytes
        coming.has_begun, coming.body = True, bytearray()
        try:
            async for part in answer.content.iter_any():
                coming.body += part
                if len(coming.body) > most:
                    break
        except (aiohttp.ClientError, OSError) as error:
            raise CutOffError("the connection ended in the middle of the answer") from error
        if len(coming.body) > most:
            raise ReplyError(f"the answer is larger than {most:,} bytes")


def sent_headers(endpoint: Endpoint) -> dict[str, str]:
    """What is sent with each request.

    Raises:
        EndpointError: the key is missing, or it or another variable of the environment is nothing that a header holds.
    """
    headers = {
        "Content-Type": "application/json",
        "Accept": "application/json",
        "Accept-Encoding": "identity",  # an answer is short, and a compressed one may become very long
        "User-Agent": "sft",
        **{header: value for name, header in _SENT_VARIABLES.items() if (value := header_from(name))},
    }
    if key := endpoint.key():
        headers["Authorization"] = f"Bearer {key}"
    return headers


@asynccontextmanager
async def connected(endpoint: Endpoint, patience: Patience) -> AsyncIterator[Connection]:
    """What asks the server, for as long as the context is open.

    Raises:
        EndpointError: the address or the key is none.
    """
    try:
        URL(endpoint.url)
    except ValueError as error:
        raise EndpointError(f"endpoint: {endpoint.url} is no address of a server: {error}.") from None
    timeout = aiohttp.ClientTimeout(sock_connect=min(_CONNECT_SECONDS, patience.seconds), sock_read=patience.seconds)
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0),  # whoever asks bounds their number
        headers=sent_headers(endpoint),
        timeout=timeout,
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,
    ) as session:
        yield Connection(session, endpoint.url, patience)


class _PassingError(Exception):
    """What may be over soon."""

    def __init__(self, trouble: NoAnswerError, pause: float | None = None) -> None:
        """`pause`: the seconds that the server asks to wait; None if it does not."""
        super().__init__()
        self.trouble, self.pause = trouble, pause


def _pause(num_failed: int) -> float:
    """Each of many requests waits a little less by chance, so that they do not come back together."""
    return float(min(_LONGEST_PAUSE, _FIRST_PAUSE * 2**num_failed) * (1 - random.random() / 4))


def _asked_pause(headers: Mapping[str, str]) -> float | None:
    """The seconds of `Retry-After`, which is a number or a date; None where it is neither, or too far away."""
    given = headers.get("Retry-After", "")
    try:
        seconds = float(given)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(given).timestamp() - time.time()
        except (ValueError, TypeError, OverflowError):
            return None
    return seconds if 0 < seconds <= _LONGEST_ASKED_FOR else None


async def _told(answer: aiohttp.ClientResponse) -> str:
    """What the server says of an error."""
    try:
        body = await answer.content.read(_MOST_ERROR_BYTES)
    except (aiohttp.ClientError, OSError):
        body = b""
    text = body.decode(errors="replace")
    try:
        content: Any = json.loads(text)
    except (ValueError, RecursionError):
        return quoted(text or answer.reason or "")
    error = content.get("error", content) if isinstance(content, Mapping) else content
    return quoted(error["message"] if isinstance(error, Mapping) and "message" in error else error)
