"""A config as YAML with comments behind values: where a value comes from, or what is not known.

{"lr": Said(2e-5, "learning_rate")}  →  lr: 2.0e-5  # learning_rate
"""

import json
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

_WIDTH = 120
_FLOW_WIDTH = 60
_PLAIN = re.compile(r"[A-Za-z_/~][A-Za-z0-9_./@+-]*")
_NO_TEXT = {"true", "false", "yes", "no", "on", "off", "y", "n", "null", "none", "~"}


class Said(NamedTuple):
    """A value, and a comment on it."""

    value: Any
    comment: str = ""


def without_comments(content: Any) -> Any:
    """The content with plain values."""
    if isinstance(content, Said):
        return without_comments(content.value)
    if isinstance(content, Mapping):
        return {key: without_comments(value) for key, value in content.items()}
    return [without_comments(item) for item in content] if isinstance(content, list | tuple) else content


def write_commented(content: Mapping[str, Any], header: Sequence[str] = ()) -> str:
    """The content as YAML.

    Args:
        content: sections, whose values may be `Said`.
        header: paragraphs for the top of the file.
    """
    top = [line for paragraph in header for line in _comment(paragraph, "")]
    return "\n".join([*top, *_block(content, "")]) + "\n"


def _block(content: Mapping[str, Any], pad: str) -> Iterator[str]:
    for key, given in content.items():
        value, comment = given if isinstance(given, Said) else (given, "")
        if _is_block(value, pad):
            yield from _comment(comment, pad)
            yield f"{pad}{_scalar(key)}:"
            if isinstance(value, Mapping):
                yield from _block(value, f"{pad}  ")
            else:
                for item in value:
                    yield from _item(item, f"{pad}  ")
        else:
            line = f"{pad}{_scalar(key)}: {_flow(value)}"
            if comment and len(line) + len(comment) + 4 > _WIDTH:
                yield from _comment(comment, pad)
                comment = ""
            yield f"{line}  # {comment}" if comment else line


def _item(item: Mapping[str, Any], pad: str) -> Iterator[str]:
    lines = list(_block(item, f"{pad}  "))
    # A comment may come before the first key.
    first = next(i for i, line in enumerate(lines) if not line.lstrip().startswith("#"))
    yield from lines[:first]
    yield f"{pad}- {lines[first].lstrip()}"
    yield from lines[first + 1 :]


def _is_block(value: Any, pad: str) -> bool:
    if isinstance(value, list | tuple):
        return any(isinstance(item, Mapping) for item in value)
    if not isinstance(value, Mapping) or not value:
        return False
    has_comments = any(isinstance(given, Said) and given.comment for given in value.values())
    is_deep = any(_is_block(without_comments(given), pad) or isinstance(given, Mapping) for given in value.values())
    return not pad or has_comments or is_deep or len(_flow(value)) > _FLOW_WIDTH


def _comment(text: str, pad: str) -> list[str]:
    width = _WIDTH - len(pad) - 2
    lines = [line for part in text.split("\n") for line in textwrap.wrap(part, width, break_on_hyphens=False)]
    return [f"{pad}# {line}" for line in lines]


def _flow(value: Any) -> str:
    value = without_comments(value)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_scalar(key)}: {_flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_flow, value)) + "]"
    return _scalar(value)


def _scalar(value: Any) -> str:
    if isinstance(value, float) and "e" in (text := repr(value)):
        mantissa, _, exponent = text.partition("e")
        # Without the dot, YAML 1.1 reads it as a text.
        return f"{mantissa if '.' in mantissa else f'{mantissa}.0'}e{int(exponent)}"
    if isinstance(value, str) and _PLAIN.fullmatch(value) and value.lower() not in _NO_TEXT:
        return value
    return _quoted(value) if isinstance(value, str) else json.dumps(value)


def _quoted(text: str) -> str:
    """In double quotes; unprintable characters are escaped, because YAML reads some of them as line ends."""
    escaped = (f"\\{char}" if char in '"\\' else char if char.isprintable() else f"\\U{ord(char):08X}" for char in text)
    return f'"{"".join(escaped)}"'
