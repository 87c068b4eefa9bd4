"""Where a served model is, and how patient its client is."""

import os
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from sft.errors import UserError
from sft.url_secrets import remember_secret, without_secrets

USUAL_KEY = "OPENAI_API_KEY"


class EndpointError(UserError):
    """Nothing can be asked there, or nothing more. The text says why and what to do."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How much is asked at once, and how long answers are waited for."""

    at_once: int = 32
    """Requests under way. The next one is only made when one of them has ended."""
    seconds: float = 300.0
    """For one try of a request, without a byte from the server."""
    seconds_in_all: float = 900.0
    """For a request with all its tries."""
    retries: int = 6
    """Of a request that met no server, a busy one (429) or one in trouble (5xx). The pause doubles, from half a second
    to eight; a server's `Retry-After` of up to a minute or two is kept."""
    most_in_vain: int = 16
    """So many requests in a row without an answer end it all."""
    most_bytes: int = 4 << 20
    """Of one answer."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A server, and a model of it."""

    url: str
    """Up to and with `/v1`."""
    model: str = ""
    """Empty: the only one that the server has."""
    api_key_env: str = ""
    """The variable with the key; empty: `OPENAI_API_KEY`, if it is set."""
    own_key: str = field(default="", repr=False)
    """The key of a server that this program has started."""

    def __post_init__(self) -> None:
        """Refuse what is no address of a server.

        Raises:
            EndpointError: it is none, or holds a password or a query.
        """
        shown = without_secrets(self.url)
        try:
            parts = urlsplit(self.url)  # it drops line ends
            is_right = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
            is_right &= self.url.isprintable() and " " not in self.url
        except ValueError:
            is_right = False
        if not is_right:
            raise EndpointError(f"endpoint: {shown!r} is no address of a server. Give one such as {_EXAMPLE}")
        if parts.username or parts.password or parts.query or parts.fragment:
            raise EndpointError(
                f"endpoint: {shown}: give the address without user, password and query, as in {_EXAMPLE} A key comes "
                f"from the environment: {USUAL_KEY}, or the variable that api_key_env names."
            )

    def key(self) -> str:
        """The key; it is remembered as a secret, so no message holds it. Empty: none.

        Raises:
            EndpointError: the variable that is named is not set, or holds what is no key.
        """
        key = self.own_key or header_from(self.api_key_env or USUAL_KEY)
        if self.api_key_env and not key:
            raise EndpointError(
                f"endpoint: the variable {self.api_key_env}, which is to hold the key for {self.url}, is not set. "
                f"Set it in the environment: export {self.api_key_env}=…"
            )
        remember_secret(key)
        return key


def header_from(variable: str) -> str:
    """What a variable of the environment says, as a header can hold it; empty where it is not set.

    Raises:
        EndpointError: it holds something else. No message shows what.
    """
    value = os.environ.get(variable, "").strip()
    remember_secret(value)
    if not (value.isascii() and value.isprintable()):
        for line in value.splitlines():
            remember_secret(line)
        raise EndpointError(
            f"endpoint: the variable {variable} holds {_what_is_no_header(value)}, so it is not what a server has "
            f"given you. Set it to that alone, in one line and without quotation marks."
        )
    return value


def _what_is_no_header(value: str) -> str:
    if len(value.splitlines()) > 1:
        return "more than one line"
    return "a control character" if value.isascii() else "a character that is not ASCII, such as a typographic quote"


_EXAMPLE = "http://127.0.0.1:8000/v1."
