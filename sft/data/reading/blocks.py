"""The pieces that a source is cut into, small enough to be sent to another process and prepared there.

Where a source is cut is decided by its content alone, so a number names the same records in every run.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import pyarrow as pa

from sft.schema import RecordLocation

BLOCK_BYTES = 1 << 20
"""Of text in a block, or nearly; at most `MAX_RECORD_BYTES`."""
BLOCK_RECORDS = 4096
"""At most so many rows of a table are a block."""
MAX_RECORD_BYTES = 32 << 20
"""The longest record: a line, a row or an item of a list, unpacked. What is longer is never held in memory whole."""
MAX_UNPACKED_BYTES = 1 << 30
"""What is stored at once in a file, such as a column of a row group, may be so large unpacked, or larger where it is
not `MAX_RATIO` times what is stored."""
MAX_RATIO = 100


class Unreadable(NamedTuple):
    """Stands in the place of a record that cannot be read."""

    reason: str


Rows: TypeAlias = tuple[tuple[int, Any], ...]
"""Records that are read already: the number of each one's line or row, and its JSON value or an `Unreadable`."""

Content: TypeAlias = bytes | pa.Buffer | Rows
"""Text, rows of a table as an Arrow stream, or rows that are read already."""


def unpacks_too_far(num_bytes: int, num_stored: int | None) -> bool:
    """Whether so few stored bytes as these become so many that they are meant to fill the memory."""
    return num_bytes > MAX_UNPACKED_BYTES and num_bytes > MAX_RATIO * (num_stored or 0)


class Piece(NamedTuple):
    """What the reader of one file cuts: a block that does not know its source."""

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
    """In its source, from 0."""
    first_index: int
    """The index of its first line or record in the source."""
    where: RecordLocation
    """The place of its first line or record."""
    content: Content
    """Text is lines where the place is a line, else one JSON value."""
    done: float
    """The share of the source, from 0 to 1, that is read up to the end of this block."""
    num_wanted: int | None = None
    """Only so many of its lines or records are read; None: all."""
