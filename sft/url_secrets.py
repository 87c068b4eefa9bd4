"""Removes passwords from everything that is shown: those in URLs, and all occurrences of those in the config's URLs.

Libraries quote parts of a URL, as botocore does with the presumed name of a bucket. So the secrets of a config are
remembered when it is read, and removed from every text of this process.
"""

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

_MIN_SECRET_CHARS = 4
"""A shorter secret would also match ordinary words."""

# A password may contain a slash, but what looks like a port is a port.
_USER = re.compile(r"(\w[\w+.-]*://)(?:[^/\s]*|[^\s@/:]*:(?!:|\d+(?:/|$))(?:(?!://)[^\s@])*)@")
_QUERIES = (
    re.compile(r"(https?://[^\s?'\"]*)\?[^\s'\"]*"),
    re.compile(r"(\w[\w+.-]*://[^\s?'\"]*)\?[^\s'\"/]*=[^\s'\"]*"),
)
_TOKENS = re.compile(r"\b(?:hf_[A-Za-z0-9]{20,}|AKIA[A-Z0-9]{16})\b|(?<=[Bb]earer )[\w.~+/-]{8,}=*")
_HIDDEN = "***"

_known: set[str] = set()


def without_secrets(text: str) -> str:
    """The text without `user:password@` and queries in its URLs, and without all remembered secrets."""
    if "://" in text:
        text = _USER.sub(r"\1", text)
        for query in _QUERIES:
            text = query.sub(r"\1", text)
    text = _TOKENS.sub(_HIDDEN, text)
    for secret in sorted(_known, key=len, reverse=True):
        text = text.replace(f"{secret}@", "").replace(secret, _HIDDEN)
    return text


def hide_secrets(value: Any) -> Any:
    """Plain values with `without_secrets` applied to every text in them."""
    if isinstance(value, str):
        return without_secrets(value)
    if isinstance(value, Mapping):
        return {hide_secrets(key): hide_secrets(item) for key, item in value.items()}
    return [hide_secrets(item) for item in value] if isinstance(value, list | tuple) else value


def remember_path(url: Any) -> None:
    """Remember the path of a webhook's URL as a secret: whoever knows it can post."""
    if isinstance(url, str):
        path = url.partition("://")[2].partition("/")[2]
        _known.update(secret for secret in (path, path.partition("?")[0]) if len(secret) >= _MIN_SECRET_CHARS)


def remember_secret(text: str) -> None:
    """Remember a key that is used, so that no message shows it."""
    if len(text) >= _MIN_SECRET_CHARS:
        _known.add(text)


def remember_secrets(value: Any) -> None:
    """Remember the secrets of the URLs in plain values."""
    if isinstance(value, str) and "://" in value:
        for found in _USER.finditer(value):
            user = found[0].partition("://")[2].removesuffix("@")
            name, colon, password = user.partition(":")
            _known.update(
                secret
                for part in (user, password if colon else name)
                for secret in (part, unquote(part))
                if len(secret) >= _MIN_SECRET_CHARS
            )
    elif isinstance(value, Mapping):
        remember_secrets([*value, *value.values()])
    elif isinstance(value, list | tuple):
        for item in value:
            remember_secrets(item)
