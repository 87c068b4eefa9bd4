"""The server of the page: on this machine's own address alone, behind a random token in the page's address.

    GET  /TOKEN/               the page, and its style and scripts by their names
    GET  /TOKEN/progress       how far everybody is
    GET  /TOKEN/record         a certain record
    GET  /TOKEN/search         records that hold some words
    POST /TOKEN/next           the next record
    POST /TOKEN/decide         a decision; answered when it is on disk
    POST /TOKEN/leave          a window is closed

    409                        it is refused, and is refused again if it is asked again
    500                        the program fails at it, and does so again
    503, 507                   it cannot be done now, since a file cannot be read or written: the page asks again

A browser also runs pages of others, so an address on this machine protects nothing by itself. Every request needs the
token. The Host has to be ours, so no foreign name that is made to point here gets in; an Origin, where a browser sends
one, has to be ours, too. The page may load and ask nothing but this server. Files are served by name from this package:
no path of a request ever reaches the file system.

aiohttp serves it: Ray's dashboard, which this project installs, needs it anyway.
"""

import asyncio
import hmac
import json
import secrets
import socket
import threading
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from importlib.resources import files
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from aiohttp import web

from sft.errors import UserError
from sft.json_lines import without_nan
from sft.review.refusals import NotNow, Refused, reason_of
from sft.review.session import ReviewSession

_HOST = "127.0.0.1"
_TOKEN_BYTES = 24
_MOST_BODY_BYTES = 64 << 20
"""An edit may be as long as the longest record, twice: characters are escaped."""
_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
_FILES = ("page.css", "page.js", "difference.js", "kept.js", "server.js", "spelled.js")
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "Server": "sft",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}

if TYPE_CHECKING:
    from aiohttp.typedefs import Middleware

Answer = Callable[[Mapping[str, Any]], Any]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def serve(session: ReviewSession, port: int, say: Callable[[str], None]) -> None:
    """Serve the page until the process is interrupted.

    Args:
        session: what the page asks.
        port: of this machine; 0: any that is free.
        say: called once with the address.

    Raises:
        UserError: the port is in use, or decisions cannot be kept.
    """
    session.check_is_writable()
    listening = _listen(port)
    address = f"{_HOST}:{listening.getsockname()[1]}"
    token = secrets.token_urlsafe(_TOKEN_BYTES)
    say(f"http://{address}/{token}/")
    threading.Thread(target=_check_ids, args=(session,), name="ids", daemon=True).start()
    asyncio.run(_serve(build_app(session, token, address), listening))


def build_app(session: ReviewSession, token: str, address: str) -> web.Application:
    """The application; `address` is the host and port that it is reached by."""
    app = web.Application(client_max_size=_MOST_BODY_BYTES, middlewares=[_guard(token, address)])
    app.router.add_get("/{token}/", _page_file("page.html"))
    for name in _FILES:
        app.router.add_get(f"/{{token}}/{name}", _page_file(name))
    asked: dict[str, Answer] = {
        "progress": lambda given: session.progress(_text(given, "window")),
        "record": lambda given: session.show(_text(given, "record"), _text(given, "window")),
        "search": lambda given: session.search(_text(given, "words")),
    }
    told: dict[str, Answer] = {
        "next": lambda given: session.next(_text(given, "window")),
        "decide": lambda given: session.decide(given, _text(given, "window")),
        "leave": lambda given: session.leave(_text(given, "window")),
    }
    for name, answer in asked.items():
        app.router.add_get(f"/{{token}}/{name}", _asked(answer))
    for name, answer in told.items():
        app.router.add_post(f"/{{token}}/{name}", _told(answer))
    return app


def _check_ids(session: ReviewSession) -> None:
    with suppress(UserError):  # the page says of each record that is not there any more
        session.check_ids()


def _listen(port: int) -> socket.socket:
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((_HOST, port))
        listening.listen()  # the address is said before it is answered: whoever comes at once waits
    except (OSError, OverflowError) as error:
        listening.close()
        reason = str(getattr(error, "strerror", None) or error).rstrip(".")
        raise UserError(
            f"port {port} cannot be used: {reason}. Give another with --port, or 0 for a free one."
        ) from None
    return listening


async def _serve(app: web.Application, listening: socket.socket) -> None:
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        await web.SockSite(runner, listening).start()
        await asyncio.Event().wait()
    finally:
        await runner.cleanup()


def _guard(token: str, address: str) -> "Middleware":
    hosts = {address, address.replace(_HOST, "localhost")}

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            response = await _guarded(request, handler)
        except web.HTTPException as refusal:
            response = web.Response(status=refusal.status, text=refusal.reason)
        response.headers.update(_HEADERS)
        return response

    async def _guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.headers.get("Host") not in hosts:
            return web.Response(status=421, text="this server has another name")
        origin = request.headers.get("Origin")
        is_foreign = origin is not None and origin != f"http://{request.headers['Host']}"
        if is_foreign or request.headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin"):
            return web.Response(status=403, text="another page may not ask here")
        given = request.match_info.get("token", "")
        # The answer to a wrong token is that to an address which does not exist.
        if not hmac.compare_digest(given.encode("utf-8", "replace"), token.encode()):
            return web.Response(status=404, text="Not Found")
        return await handler(request)

    return guard


def _page_file(name: str) -> Handler:
    content = files("sft.review").joinpath(name).read_bytes()

    async def send(request: web.Request) -> web.Response:
        return web.Response(body=content, content_type=_TYPES[PurePath(name).suffix], charset="utf-8")

    return send


def _asked(answer: Answer) -> Handler:
    async def send(request: web.Request) -> web.Response:
        return await _answered(answer, dict(request.query))

    return send


def _told(answer: Answer) -> Handler:
    async def send(request: web.Request) -> web.Response:
        # A form of another page cannot send this type without asking first.
        if request.content_type != "application/json":
            return web.Response(status=415, text="this takes JSON")
        try:
            given = json.loads(await request.read())
        except (ValueError, RecursionError):
            given = None
        if not isinstance(given, dict):
            return web.Response(status=400, text="this is no JSON object")
        return await _answered(answer, given)

    return send


async def _answered(answer: Answer, given: Mapping[str, Any]) -> web.Response:
    try:
        # Half a pair of surrogates is escaped, as the page needs it.
        return web.Response(
            text=json.dumps(without_nan(await asyncio.to_thread(answer, given))), content_type="application/json"
        )
    except (NotNow, UserError) as error:
        return web.Response(status=503, text=reason_of(error))
    except Refused as refusal:
        return web.Response(status=409, text=reason_of(refusal))
    except OSError as error:
        return web.Response(status=507, text=reason_of(error))
    except Exception as error:
        return web.Response(status=500, text=reason_of(error))


def _text(given: Mapping[str, Any], name: str) -> str:
    value = given.get(name)
    return value if isinstance(value, str) else ""
