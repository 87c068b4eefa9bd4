"""Checks an Arrow file before its rows are read, because it is mapped into memory as it is.

Two things are checked. The size of its compressed buffers once unpacked: a message is a flatbuffer and a body
(https://arrow.apache.org/docs/format/Columnar.html), and each buffer of a compressed body begins with its own unpacked
length. pyarrow shows neither, so this module reads the few fields that say it. And whether the offsets of the values
lie inside the file: pyarrow would follow them anywhere.
"""

import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

_DICTIONARY_BATCH, _RECORD_BATCH = 2, 3
_FILE_MAGIC = b"ARROW1\0\0"
_NOT_COMPRESSED = -1


class Body(NamedTuple):
    """The body of a message, in bytes: as stored in the file, and unpacked."""

    num_stored: int
    num_unpacked: int


def bodies(mapped: pa.MemoryMappedFile) -> Iterator[Body]:
    """The body of each message that holds rows or a dictionary, in Arrow's file format or its stream format."""
    mapped.seek(len(_FILE_MAGIC) if mapped.read(len(_FILE_MAGIC)) == _FILE_MAGIC else 0)
    for message in pa.ipc.MessageReader.open_stream(mapped):
        table = _Table.root(memoryview(message.metadata))
        kind, header = table.byte(1), table.child(2)
        if kind not in (_DICTIONARY_BATCH, _RECORD_BATCH) or header is None:
            continue
        batch = header.child(1) if kind == _DICTIONARY_BATCH else header
        if batch is not None and batch.child(3) is not None:
            body = message.body
            yield Body(body.size, sum(_unpacked(body, *buffer) for buffer in batch.structs(2, "<qq")))


def check_places(array: pa.Array) -> None:
    """Check that values lie where the array says; a text need not be UTF-8.

    Raises:
        pa.ArrowInvalid: they do not.
    """
    try:
        array.validate(full=True)
    except pa.ArrowInvalid as error:
        # In an array of texts, offsets are checked before UTF-8. The arrays that contain it are then unchecked.
        if "UTF8" not in str(error):
            raise
        kind, types = array.type, pa.types
        if types.is_struct(kind):
            for i in range(kind.num_fields):
                check_places(array.field(i))
        elif types.is_list(kind) or types.is_large_list(kind):
            offsets = array.offsets.to_numpy(zero_copy_only=False)
            if offsets[0] < 0 or (np.diff(offsets) < 0).any() or offsets[-1] > len(array.values):
                raise
            check_places(array.values)
        elif not (types.is_string(kind) or types.is_large_string(kind)):
            raise


def _unpacked(body: Any, offset: int, num_bytes: int) -> int:
    if num_bytes < 8:
        return num_bytes
    (length,) = struct.unpack("<q", body.slice(offset, 8).to_pybytes())
    return num_bytes if length == _NOT_COMPRESSED else int(length)


class _Table:
    """A table of a flatbuffer, with its fields by number (https://flatbuffers.dev/internals)."""

    def __init__(self, content: memoryview, at: int) -> None:
        self._content, self._at = content, at
        fields = at - self._read("<i", at)[0]
        num_bytes, _ = self._read("<HH", fields)
        self._offsets = self._read(f"<{num_bytes // 2 - 2}H", fields + 4)

    @classmethod
    def root(cls, content: memoryview) -> "_Table":
        return cls(content, struct.unpack_from("<I", content)[0])

    def byte(self, field: int) -> int:
        at = self._place(field)
        return 0 if at is None else int(self._read("<B", at)[0])

    def child(self, field: int) -> "_Table | None":
        at = self._place(field)
        return None if at is None else _Table(self._content, at + self._read("<I", at)[0])

    def structs(self, field: int, layout: str) -> Iterator[tuple[Any, ...]]:
        at = self._place(field)
        if at is not None:
            start = at + self._read("<I", at)[0]
            (length,) = self._read("<I", start)
            size = struct.calcsize(layout)
            yield from (self._read(layout, start + 4 + i * size) for i in range(length))

    def _place(self, field: int) -> int | None:
        offset = self._offsets[field] if field < len(self._offsets) else 0
        return self._at + offset if offset else None

    def _read(self, layout: str, at: int) -> tuple[Any, ...]:
        return struct.unpack_from(layout, self._content, at)
