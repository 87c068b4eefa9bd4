"""JSON that can be computed with and written again, as it is read of what strangers and models write.

NaN and Infinity are no JSON, nor is a number that no float holds, such as 1e999, or one of more digits than Python
reads. What is nested deeper than anybody nests would end, by a RecursionError, whatever goes through it later.
"""

import json
import math
import re
from typing import Any

from sft.nesting import MOST_LEVELS, is_deep


def read_json(text: str) -> Any:
    """The value of a text that is JSON.

    Raises:
        ValueError: it is none, with the reason.
    """
    try:
        return not_too_deep(_DECODER.decode(text), text)
    except RecursionError:
        raise _too_deep() from None


def read_fenced_json(text: str) -> Any:
    """As `read_json`, of a text that may stand in one fence of Markdown, as many models write it."""
    fenced = _FENCED.fullmatch(text)
    return read_json(fenced[1] if fenced else text)


def read_json_at(text: str, at: int) -> tuple[Any, int]:
    """The value that begins at a place of a text, and where it ends.

    Raises:
        ValueError: none begins there, with the reason.
    """
    try:
        value, end = _DECODER.raw_decode(text, at)
        return not_too_deep(value, text[at:end]), end
    except RecursionError:
        raise _too_deep() from None


def not_too_deep(value: Any, text: str) -> Any:
    """The value that stands in a text.

    Raises:
        ValueError: it is nested too deep.
    """
    if is_deep(value, text):
        raise _too_deep()
    return value


def without_halves(text: str) -> str:
    """The text without halves of characters: JSON can spell one, as where a text was cut, and no tokenizer reads it."""
    return _HALVES.sub("\N{REPLACEMENT CHARACTER}", text)


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON")


def _finite(number: str) -> float:
    value = float(number)
    if math.isinf(value):
        raise ValueError(f"{number[:20]} is more than a number can be")
    return value


def _too_deep() -> ValueError:
    return ValueError(f"it is nested more than {MOST_LEVELS} levels deep")


_FENCED = re.compile(r"\s*```(?:json)?[ \t]*\n(.*)\n[ \t]*```\s*", re.DOTALL | re.IGNORECASE)
_HALVES = re.compile(r"[\ud800-\udfff]")
_DECODER = json.JSONDecoder(parse_constant=_refuse, parse_float=_finite)
