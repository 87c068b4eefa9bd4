"""Parses JSON: one value, or the values of a file one after another, with one at a time in memory.

An object that has a key twice is refused: parsers disagree about which of the two values counts.
"""

import codecs
import json
import re
from collections import Counter
from io import BufferedReader
from typing import Any

from sft.data.reading import blocks
from sft.data.reading.blocks import Unreadable

_SPACE = re.compile(r"[ \t\r\n]*")
_NEAR_THE_END = 16
"""An error this close to the end of what is read may be about a value that continues behind it."""


class RepeatedKeyError(ValueError):
    """An object has a key twice."""


class BrokenJsonError(ValueError):
    """The file cannot be read from here on; the text says why."""

    def __init__(self, reason: str, line: int, column: int | None = None) -> None:
        """`line` and `column` say where the JSON breaks; no column where the line says enough."""
        super().__init__(reason)
        self.line, self.column = line, column


def parse_json_text(text: str) -> Any:
    """The value of the text.

    Raises:
        ValueError: the text is not JSON, an object in it has a key twice, or a number has too many digits.
        RecursionError: it is nested too deep.
    """
    return _DECODER.decode(text)


def decode_value(text: bytes, is_line: bool = True) -> Any:
    """The JSON value, or an `Unreadable`."""
    try:
        return parse_json_text(text.decode().removeprefix("\ufeff"))
    except UnicodeDecodeError as error:
        return Unreadable(f"invalid UTF-8 at byte {error.start} of the {'line' if is_line else 'file'}")
    except json.JSONDecodeError as error:
        place = f"column {error.colno}" if is_line else f"line {error.lineno} column {error.colno}"
        return Unreadable(f"broken JSON: {error.msg} at {place}")
    except RepeatedKeyError as error:
        return Unreadable(str(error))
    except (ValueError, RecursionError) as error:  # a number with too many digits, brackets nested too deep
        return Unreadable(f"broken JSON: {error}")


class ValueReader:
    """Reads JSON values from a stream, whatever stands between them; holds little more than the current value."""

    def __init__(self, stream: BufferedReader) -> None:
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._num_bytes = len(stream.read(3)) if stream.peek(3).startswith(codecs.BOM_UTF8) else 0
        self._text = ""
        self._at = 0
        self._lines_before = self._columns_before = 0
        self._ended = False
        self._fill(blocks.BLOCK_BYTES)

    def next_character(self) -> str:
        """The next character that is not white space, without reading it; the empty string at the end.

        Raises:
            BrokenJsonError: the file is not UTF-8.
        """
        while True:
            space = _SPACE.match(self._text, self._at)
            assert space is not None, "the pattern matches the empty string too"
            self._at = space.end()
            if self._at < len(self._text) or self._ended:
                return self._text[self._at : self._at + 1]
            self._fill(blocks.BLOCK_BYTES)

    def skip(self) -> None:
        """Read the character that `next_character` showed."""
        self._at += 1

    def next_value(self) -> tuple[Any, int]:
        """The value that begins here, or an `Unreadable`, and the number of its characters.

        Raises:
            BrokenJsonError: it is not JSON, so its end is unknown, or it is longer than `blocks.MAX_RECORD_BYTES`.
        """
        num_more = blocks.BLOCK_BYTES
        while True:
            try:
                value, end = self._parse()
            except json.JSONDecodeError as error:
                goes_on = error.msg.startswith("Unterminated") or error.pos > len(self._text) - _NEAR_THE_END
                if self._ended or not goes_on:
                    raise self.broken(error.msg, error.pos) from None
            except (ValueError, RecursionError) as error:  # a number with too many digits, brackets nested too deep
                raise self.broken(str(error), self._at) from None
            else:
                # A number may continue behind what is read.
                if end < len(self._text) or self._ended:
                    num_characters = end - self._at
                    self._at = end
                    return value, num_characters
            if len(self._text) - self._at > blocks.MAX_RECORD_BYTES:
                most = f"at most {blocks.MAX_RECORD_BYTES:,} are read"
                raise BrokenJsonError(f"the record has more bytes than can be held: {most}", self._line(self._at))
            self._fill(num_more)
            num_more = min(2 * num_more, blocks.MAX_RECORD_BYTES)

    def broken(self, reason: str, at: int | None = None) -> BrokenJsonError:
        """The error, with the line and the column of the file where it is."""
        at = self._at if at is None else at
        last = self._text.rfind("\n", 0, at)
        column = at - last if last >= 0 else self._columns_before + at + 1
        return BrokenJsonError(f"broken JSON: {reason}", self._line(at), column)

    def _parse(self) -> tuple[Any, int]:
        try:
            return _DECODER.raw_decode(self._text, self._at)
        except RepeatedKeyError as error:
            return Unreadable(str(error)), _LENIENT.raw_decode(self._text, self._at)[1]

    def _fill(self, num_bytes: int) -> None:
        content = self._stream.read(num_bytes)
        pending = len(self._decoder.getstate()[0])
        try:
            more = self._decoder.decode(content, final=not content)
        except UnicodeDecodeError as error:
            at = self._num_bytes - pending + error.start
            raise BrokenJsonError(f"invalid UTF-8 at byte {at} of the file", self._line(len(self._text))) from None
        self._num_bytes += len(content)
        self._ended = not content
        last = self._text.rfind("\n", 0, self._at)
        self._columns_before = self._at - last - 1 if last >= 0 else self._columns_before + self._at
        self._lines_before += self._text.count("\n", 0, self._at)
        self._text = self._text[self._at :] + more
        self._at = 0

    def _line(self, at: int) -> int:
        return self._lines_before + self._text.count("\n", 0, at) + 1


def _as_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        counts = Counter(key for key, _ in pairs)
        twice = next(key for key, count in counts.items() if count > 1)
        raise RepeatedKeyError(f"the key {twice[:40]!r} stands twice in an object; needed: once")
    return fields


_DECODER = json.JSONDecoder(object_pairs_hook=_as_object)
_LENIENT = json.JSONDecoder()
