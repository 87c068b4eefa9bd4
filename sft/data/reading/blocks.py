"""The pieces that a source is cut into, small enough to send to another process and prepare there.

Only the content of a source decides where it is cut, so a number names the same records in every run.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import pyarrow as pa

from sft.schema import RecordLocation

BLOCK_BYTES = 1 << 20
"""The approximate size of a block's text; at most `MAX_RECORD_BYTES`."""
BLOCK_RECORDS = 4096
"""The most rows of a table in a block."""
MAX_RECORD_BYTES = 32 << 20
"""The longest record: a line, a row or an item of a list, unpacked. A longer one is never held in memory whole."""
MAX_UNPACKED_BYTES = 1 << 30
"""How large a unit of a file that is read at once, such as a column of a row group, may be unpacked. It may be larger
where it is at most `MAX_RATIO` times as large as stored."""
MAX_RATIO = 100


class Unreadable(NamedTuple):
    """Stands in the place of a record that cannot be read."""

    reason: str


Rows: TypeAlias = tuple[tuple[int, Any], ...]
"""Records that are read already: the line or row number of each, and its JSON value or an `Unreadable`."""

Content: TypeAlias = bytes | pa.Buffer | Rows
"""Text, rows of a table as an Arrow stream, or rows that are read already."""


def unpacks_too_far(num_bytes: int, num_stored: int | None) -> bool:
    """Whether so few stored bytes unpack to so many that the file is meant to fill the memory."""
    return num_bytes > MAX_UNPACKED_BYTES and num_bytes > MAX_RATIO * (num_stored or 0)


class Piece(NamedTuple):
    """What the reader of one file yields: a block that does not know its source."""

    content: Content
    first: int
    """The number of its first line or record in the file, from 1."""
    num_places: int
    """Lines or records in it."""
    done: float
    """The share of the file that is read up to its end."""
    is_line: bool = True


@dataclass(frozen=True, slots=True)
class Block:
    """Some records of a source that follow each other, not decoded yet."""

    source: str
    number: int
    """Within its source, from 0."""
    first_index: int
    """The index of its first line or record in the source."""
    where: RecordLocation
    """The location of its first line or record."""
    content: Content
    """Text is lines where the location is a line, else one JSON value."""
    done: float
    """The share of the source, from 0 to 1, that is read up to the end of this block."""
    num_wanted: int | None = None
    """How many of its lines or records to read; None: all."""
