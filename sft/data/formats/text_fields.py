"""Text from a record's fields: whole, of the right type, not empty where it must not be; or the reason why not.

A text may hold every Unicode character except ASCII's control characters; of these, tab, line feed, form feed and
carriage return are allowed. Nothing is corrected: a text with another control character was cut or decoded wrongly, and
only its owner knows the original.
"""

import math
from collections.abc import Mapping
from typing import Any

from sft.data.reading.blocks import Unreadable
from sft.errors import RecordError
from sft.schema import JsonObject

_CONTROLS = bytes(code for code in (*range(0x20), 0x7F) if code not in b"\t\n\f\r")


def read_text(fields: JsonObject, column: str) -> str:
    """The text of the field.

    Raises:
        RecordError: it is missing, not text or blank.
    """
    if column not in fields:
        raise RecordError(f"the field {column!r} is missing")
    value = fields[column]
    text = value if isinstance(value, str) and _is_clean(value) else check_text(value, f"the field {column!r}")
    if not text or text.isspace():
        raise RecordError(f"the field {column!r} is empty")
    return text


def read_optional_text(fields: JsonObject, column: str | None) -> str:
    """The text of the field; empty if there is no field, or it is missing, null or blank.

    Raises:
        RecordError: it holds something other than text.
    """
    value = None if column is None else fields.get(column)
    if value is None:
        return ""
    text = value if isinstance(value, str) and _is_clean(value) else check_text(value, f"the field {column!r}")
    return "" if text.isspace() else text


def read_first_text(fields: JsonObject, column: str) -> str:
    """The text of the field, or the first of a list of texts.

    Raises:
        RecordError: it is missing, not text or blank.
    """
    value = fields.get(column)
    return read_text({column: value[0]} if isinstance(value, list) and value else fields, column)


def check_text(value: object, what: str) -> str:
    """The value as text; it may be empty.

    Raises:
        RecordError: it is not text, or has characters that a text may not have; `what` begins the reason.
    """
    if not isinstance(value, str):
        raise RecordError(f"{what} holds {kind_of(value)}, not text")
    if flaw := text_flaw(value):
        raise RecordError(f"{what} holds {flaw}")
    return value


def text_flaw(text: str) -> str | None:
    """The first character that a text may not have, with its position; None where there is none."""
    if _is_clean(text):
        return None
    for number, character in enumerate(text, start=1):
        code = ord(character)
        if 0xD800 <= code <= 0xDFFF:
            # JSON can spell half of a surrogate pair, mostly where a text was cut. No tokenizer can read it.
            return f"half of a surrogate pair at character {number}: not text"
        if code < 0x80 and code in _CONTROLS:
            return f"the control character U+{code:04X} at character {number}"
    raise AssertionError("a text that is not clean has a character that shows it")


def kind_of(value: object) -> str:
    """The kind of a JSON value, in words."""
    if isinstance(value, Unreadable):
        return f"a value that cannot be read ({value.reason})"
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, int | float):
        return "NaN" if math.isnan(value) else "a number"
    if isinstance(value, str):
        return "text"
    if isinstance(value, bytes):
        return "bytes"
    if isinstance(value, list | tuple):
        return "a list"
    return "an object" if isinstance(value, Mapping) else f"a {type(value).__name__}"


def check_json(value: Any, what: str, depth: int = 100) -> None:
    """Check that every text in it is valid and every number is finite.

    Raises:
        RecordError: one is not; `what` begins the reason.
    """
    if isinstance(value, str):
        check_text(value, what)
    elif isinstance(value, Mapping | list | tuple) and not isinstance(value, Unreadable):
        if depth == 0:
            raise RecordError(f"{what} is nested too deep")
        if isinstance(value, Mapping):
            for name in value:
                check_text(name, what)
        for inner in value.values() if isinstance(value, Mapping) else value:
            check_json(inner, what, depth - 1)
    elif isinstance(value, float) and not math.isfinite(value):
        raise RecordError(f"{what} holds {value}, which is not a JSON number")
    elif value is not None and not isinstance(value, int | float):
        raise RecordError(f"{what} holds {kind_of(value)}, which JSON does not have")


def _is_clean(text: str) -> bool:
    # In UTF-8 the bytes below 0x80 are exactly the ASCII characters, and searching bytes is faster than searching text.
    try:
        encoded = text.encode()
    except UnicodeEncodeError:
        return False
    return len(encoded.translate(None, _CONTROLS)) == len(encoded)
