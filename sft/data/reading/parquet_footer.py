"""What the footer of a Parquet file says about its column chunks, before any of them is read.

pyarrow shows it too, but a damaged footer makes it end the whole process: it does not catch the errors of its C++
code there. So this module reads the few fields that are needed. The footer is one value of Thrift's compact protocol
(https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md); the numbers of its fields are in
https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift.
"""

import struct
from pathlib import Path
from typing import Any, NamedTuple

_DELTA_BYTE_ARRAY = 7
_TRUE, _FALSE, _BYTE, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = 1, 2, 3, 7, 8, 9, 10, 11, 12


class ColumnChunk(NamedTuple):
    """The values of a column in a row group."""

    path: str
    num_values: int
    num_stored: int
    """Bytes, as stored in the file."""
    num_unpacked: int
    """Bytes, uncompressed."""
    has_dictionary: bool
    is_delta: bool
    """Each value may begin with all of the one before."""


def read_row_groups(file: Path) -> list[list[ColumnChunk]]:
    """The column chunks of each row group. Before this, pyarrow has checked that the footer is complete.

    Raises:
        ValueError: a field is missing, or the footer is damaged in another way.
    """
    with file.open("rb") as opened:
        opened.seek(-8, 2)
        length = int.from_bytes(opened.read(4), "little")
        opened.seek(-8 - length, 2)
        footer = opened.read(length)
    try:
        groups = _Values(footer).read(_STRUCT)[4]
        return [[_chunk(column[3]) for column in group[1]] for group in groups]
    except (LookupError, TypeError, AttributeError, struct.error) as error:
        raise ValueError(f"its footer is damaged ({type(error).__name__})") from error


def _chunk(fields: dict[int, Any]) -> ColumnChunk:
    path = ".".join(part.decode(errors="replace") for part in fields[3])
    return ColumnChunk(path, fields[5], fields[7], fields[6], 11 in fields, _DELTA_BYTE_ARRAY in fields[2])


class _Values:
    """The values of a text in Thrift's compact protocol: a struct is a dict keyed by the numbers of its fields."""

    def __init__(self, content: bytes) -> None:
        self._content, self._at = content, 0

    def read(self, kind: int) -> Any:
        if kind in (_LIST, _SET):
            head = self._byte()
            size = head >> 4 if head >> 4 < 15 else self._varint()
            return [self.read(head & 15) for _ in range(size)]
        if kind == _STRUCT:
            return self._struct()
        if kind == _BINARY:
            return self._bytes(self._varint())
        if kind == _MAP:
            size = self._varint()
            kinds = self._byte() if size else 0
            return [(self.read(kinds >> 4), self.read(kinds & 15)) for _ in range(size)]
        if kind == _DOUBLE:
            return struct.unpack("<d", self._bytes(8))[0]
        if kind in (_TRUE, _FALSE, _BYTE):
            return self._byte()
        number = self._varint()
        return (number >> 1) ^ -(number & 1)

    def _struct(self) -> dict[int, Any]:
        fields: dict[int, Any] = {}
        last = 0
        while head := self._byte():
            last = last + (head >> 4) if head >> 4 else self.read(4)
            kind = head & 15
            fields[last] = kind == _TRUE if kind in (_TRUE, _FALSE) else self.read(kind)
        return fields

    def _byte(self) -> int:
        self._at += 1
        return self._content[self._at - 1]

    def _bytes(self, size: int) -> bytes:
        self._at += size
        return self._content[self._at - size : self._at]

    def _varint(self) -> int:
        number = shift = 0
        while (byte := self._byte()) & 0x80:
            number |= (byte & 0x7F) << shift
            shift += 7
        return number | byte << shift
