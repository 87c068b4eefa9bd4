"""What is sent to a server over HTTP, and what comes back: again where the trouble may pass, and bounded in size.

    path, content ──Connection.bring──▶ the body of an answer of success, or a `NoAnswerError`

What a busy server (429), one in trouble (5xx) or none at all has lost is sent again after a pause, which doubles, or is
the one that the server asks for. An answer that breaks off is asked for again, too. What meets a connection that the
server has closed since the last answer is sent again at once, on another one; that is no failure.

Texts and key go where the address says: redirects are not followed, and a proxy of the environment is asked for tunnels
alone (https), in which it reads nothing. An address of http is reached without one.
"""

import asyncio
import io
import json
import random
import ssl
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.request import getproxies, proxy_bypass

import aiohttp
from aiohttp import hdrs
from yarl import URL

from sft.endpoint.chat import ReplyError, quoted
from sft.endpoint.endpoint import Endpoint, EndpointError, Patience, header_from
from sft.printable import printable
from sft.schema import JsonObject
from sft.url_secrets import remember_secrets, without_secrets

TRIES_OF_BODIES = 3
"""Of an answer that breaks off."""
_CONNECT_SECONDS = 20.0
_IDLE_SECONDS = 4.0
"""For which a connection is kept; uvicorn, in which vLLM and SGLang run, closes it after 5."""
_FIRST_PAUSE, _LONGEST_PAUSE, _LONGEST_ASKED_FOR = 0.5, 8.0, 120.0
_PASSING = 408, 409, 429
_MOST_ERROR_BYTES, _LARGE_BYTES = 1 << 16, 1 << 20
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
    """The server answers with a status other than those of success; the text is what it says."""

    def __init__(self, status: int, told: str) -> None:
        super().__init__(told)
        self.status = status


@dataclass(slots=True)
class Coming:
    """What has come of an answer so far."""

    has_begun: bool = False
    """Whether a status of success came, in any try."""
    body: bytearray = field(default_factory=bytearray)


class Connection:
    """Open to one server; see `connected`."""

    def __init__(self, session: aiohttp.ClientSession, url: URL, patience: Patience) -> None:
        self._session, self._url, self._patience = session, str(url).rstrip("/"), patience
        self._proxy = _proxy(url)

    async def bring(self, path: str, content: JsonObject | None, coming: Coming, retries: int) -> None:
        """Have an answer come.

        Args:
            path: of what is asked, behind the address.
            content: is posted as JSON; None: nothing is, it is only read.
            coming: gets the body.
            retries: how often what may pass is tried again.

        Raises:
            NoAnswerError: there is none.
            ReplyError: it is too large, or compressed.
        """
        data = None if content is None else json.dumps(content).encode()
        num_cut_off = num_failed = num_stale = 0
        while True:
            pause = 0.0
            try:
                return await self._try(path, data, coming)
            except CutOffError:
                num_cut_off += 1
                if num_cut_off == TRIES_OF_BODIES:
                    raise
            except _PassingError as passing:
                if passing.is_stale and not num_stale:
                    num_stale += 1
                    continue
                if num_failed == retries:
                    raise passing.trouble from None
                pause = _pause(num_failed) if passing.pause is None else passing.pause
                num_failed += 1
            await asyncio.sleep(pause)

    async def _try(self, path: str, data: bytes | None, coming: Coming) -> None:
        line = _Line()
        try:
            async with self._session.request(
                hdrs.METH_GET if data is None else hdrs.METH_POST,
                self._url + path,
                # Of a large body, aiohttp wants to send a part at a time.
                data=io.BytesIO(data) if data and len(data) > _LARGE_BYTES else data,
                allow_redirects=False,
                proxy=self._proxy,
                trace_request_ctx=line,
            ) as answer:
                if 200 <= answer.status < 300:
                    return await self._read(answer, coming)
                trouble = StatusError(answer.status, await _told(answer))
                if answer.status not in _PASSING and answer.status < 500:
                    raise trouble
                raise _PassingError(trouble, asked_pause(answer.headers))
        except aiohttp.ConnectionTimeoutError:
            told = f"no connection within {_connect_seconds(self._patience):g} seconds"
            raise _PassingError(UnreachedError(told)) from None
        except aiohttp.ServerTimeoutError:
            raise _PassingError(LateError()) from None
        except (aiohttp.ClientError, OSError) as error:
            is_stale = line.was_used_before and isinstance(error, aiohttp.ServerDisconnectedError | OSError)
            raise _PassingError(UnreachedError(_unreached(error)), is_stale=is_stale) from None

    async def _read(self, answer: aiohttp.ClientResponse, coming: Coming) -> None:
        most = self._patience.most_bytes
        coming.has_begun, coming.body = True, bytearray()
        if (compressed := answer.headers.get("Content-Encoding", "")) not in ("", "identity"):
            raise ReplyError(f"the answer is compressed ({quoted(compressed)}), which was not asked for")
        try:
            await _read_up_to(most, answer, coming.body)
        except (aiohttp.ClientError, OSError):
            raise CutOffError("the connection ended in the middle of the answer") from None
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
        "Accept-Encoding": "identity",  # an answer is short, and a compressed one may become endless
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
        url = URL(endpoint.url)
        (url.host or "").encode("idna")  # as whoever looks it up does
    except ValueError as error:
        raise EndpointError(f"endpoint: {endpoint.url} is no address of a server: {error}.") from None
    # That of aiohttp's own is made when it is imported.
    certificates = ssl.create_default_context() if url.scheme == "https" else True
    reuse = aiohttp.TraceConfig()
    reuse.on_connection_reuseconn.append(_note_reuse)
    async with aiohttp.ClientSession(
        # Whoever asks bounds their number.
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_IDLE_SECONDS, ssl=certificates),
        headers=sent_headers(endpoint),
        timeout=aiohttp.ClientTimeout(connect=_connect_seconds(patience), sock_read=patience.seconds),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        trust_env=False,  # it would also take keys from .netrc
        trace_configs=[reuse],
    ) as session:
        yield Connection(session, url, patience)


def _connect_seconds(patience: Patience) -> float:
    return min(_CONNECT_SECONDS, patience.seconds)


@dataclass(slots=True)
class _Line:
    """What one try is sent on."""

    was_used_before: bool = False


async def _note_reuse(_session: aiohttp.ClientSession, context: Any, _about: Any) -> None:
    context.trace_request_ctx.was_used_before = True


class _PassingError(Exception):
    """What may be over soon."""

    def __init__(self, trouble: NoAnswerError, pause: float | None = None, is_stale: bool = False) -> None:
        """Not raised to whoever asks.

        Args:
            trouble: is, if it does not pass.
            pause: the seconds that the server asks to wait; None if it does not.
            is_stale: whether the server may have closed the connection before the request came.
        """
        super().__init__()
        self.trouble, self.pause, self.is_stale = trouble, pause, is_stale


def _proxy(url: URL) -> str | None:
    """What opens a tunnel to the server.

    Raises:
        EndpointError: the environment names what is no proxy of HTTP.
    """
    if url.scheme != "https" or proxy_bypass(f"{url.raw_host}:{url.port}"):
        return None
    named = getproxies()
    given = named.get("https") or named.get("all")
    if not given:
        return None
    given = given if "://" in given else f"http://{given}"
    remember_secrets(given)
    try:
        is_right = URL(given).scheme in ("http", "https") and bool(URL(given).host)
    except ValueError:
        is_right = False
    if not is_right:
        raise EndpointError(
            f"endpoint: {without_secrets(given)}, the proxy that the environment names for {url} (HTTPS_PROXY, "
            f"ALL_PROXY), is none of HTTP. Name one such as http://proxy:3128, or add {url.host} to NO_PROXY."
        )
    return given


def _pause(num_failed: int) -> float:
    """Each of many requests waits a little less by chance, so that they do not come back together."""
    return float(min(_LONGEST_PAUSE, _FIRST_PAUSE * 2**num_failed) * (1 - random.random() / 4))


def asked_pause(headers: Mapping[str, str]) -> float | None:
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


def _unreached(error: Exception) -> str:
    """Why the server was not reached. Not all that the error holds: that may be headers."""
    match error:
        case aiohttp.ClientHttpProxyError():
            return f"the proxy answers with status {error.status}: {quoted(error.message)}"
        case aiohttp.ServerDisconnectedError():
            return "the server disconnected"  # its own text may be half a head
        case aiohttp.ClientConnectorCertificateError():
            told = _in_one_line(error.certificate_error)
            return f"{told}. What is trusted are the system's certificates, or those in the file SSL_CERT_FILE"
        case aiohttp.ClientProxyConnectionError():
            return f"the proxy: {_in_one_line(error.os_error)}"
        case aiohttp.ClientConnectorError():
            return _in_one_line(error.os_error)
        case aiohttp.ClientResponseError():
            return _in_one_line(error, error.message)
    return _in_one_line(error)


def _in_one_line(error: Exception, told: str = "") -> str:
    return printable(" ".join(without_secrets(told or str(error)).split())) or type(error).__name__


async def _read_up_to(most: int, answer: aiohttp.ClientResponse, body: bytearray) -> None:
    """Until its end, or until it is larger."""
    async for part in answer.content.iter_any():
        body += part
        if len(body) > most:
            return


async def _told(answer: aiohttp.ClientResponse) -> str:
    """What the server says of an error."""
    body = bytearray()
    with suppress(aiohttp.ClientError, OSError):
        await _read_up_to(_MOST_ERROR_BYTES, answer, body)
    text = body.decode("utf-8-sig", errors="replace")
    try:
        content: Any = json.loads(text)
    except (ValueError, RecursionError):
        return quoted(text or answer.reason or "")
    error = content.get("error", content) if isinstance(content, Mapping) else content
    return quoted(error["message"] if isinstance(error, Mapping) and "message" in error else error)
