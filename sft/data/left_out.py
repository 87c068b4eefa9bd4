"""Which records are left out as duplicates of others, found over all parts of a store, and each of them in words.

In memory are a few numbers for each record; the words are made one record at a time.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from sft.config import DataConfig
from sft.data.duplicates import find_duplicates
from sft.data.near_duplicates import find_near_duplicates
from sft.data.store_parts import StorePart, files_of, read_all, renumber
from sft.schema import BoolArray, IntArray, LeftOutKind, RecordLocation, Rejected


class LeftOut(NamedTuple):
    """What becomes of each record of the parts, in their order."""

    duplicate_of: IntArray  # (num_records,)
    """The first record that equals it, or the first kept one that nearly does: itself if it is kept."""
    is_near: BoolArray  # (num_records,)
    """Whether it is left out as a near duplicate."""

    @property
    def equal_to(self) -> IntArray:
        """The kept record that it equals, exactly or nearly, (num_records,): itself if it is kept."""
        return np.asarray(self.duplicate_of[self.duplicate_of])

    def count_by_part(self, parts: Sequence[StorePart]) -> Iterator[tuple[int, int]]:
        """The duplicates and near duplicates of each part."""
        first = 0
        for part in parts:
            own = slice(first, first + part.num_records)
            first = own.stop
            near = int(np.count_nonzero(self.is_near[own]))
            yield int(np.count_nonzero(self.duplicate_of[own] != np.arange(own.start, own.stop))) - near, near


def find_left_out(parts: Sequence[StorePart], data: DataConfig, scratch: Path) -> LeftOut:
    """Find the duplicates that the config wants to be found.

    Args:
        parts: all of them, in order.
        data: what counts as a duplicate.
        scratch: an empty folder, for the search for near duplicates.
    """
    num_records = sum(part.num_records for part in parts)
    nothing = np.zeros(num_records, dtype=bool)
    if data.duplicates == "keep" or not num_records:
        return LeftOut(np.arange(num_records), nothing)
    firsts = find_duplicates(read_all(parts, "content_hashes"))
    if data.duplicates == "remove":
        return LeftOut(firsts, nothing)
    alive = firsts == np.arange(num_records)

    def signatures() -> Iterator[npt.NDArray[np.uint32]]:
        return (part.read(["signatures"])["signatures"] for part in parts if part.num_records)

    alike = find_near_duplicates(signatures, alive, data.near_duplicate_similarity, scratch)
    is_near = alive & (alike != np.arange(num_records))
    firsts[is_near] = alike[is_near]
    return LeftOut(firsts, is_near)


def each_left_out(parts: Sequence[StorePart], left_out: LeftOut, data: DataConfig) -> Iterator[Rejected]:
    """The records that cannot be used, the duplicates, and the near duplicates; each kind in the order of the parts."""
    for part in parts:
        yield from part.read_counts().rejected
    is_other = left_out.duplicate_of != np.arange(len(left_out.duplicate_of))
    if is_other.any():
        places = _Places(parts)
        yield from places.each(is_other & ~left_out.is_near, left_out.duplicate_of, "duplicate", data)
        yield from places.each(left_out.is_near, left_out.duplicate_of, "near duplicate", data)


class _Places:
    """Where each record of the parts can be looked up."""

    def __init__(self, parts: Sequence[StorePart]) -> None:
        self._parts = parts
        self._files = files_of(parts)
        num_records = sum(part.num_records for part in parts)
        self._file_ids = np.empty(num_records, np.int32)
        self._numbers = np.empty(num_records, np.int64)
        self._instances = np.empty(num_records, np.int32)
        at = 0
        for part in parts:
            own = slice(at, at + part.num_records)
            at = own.stop
            arrays = part.read_records(("file_ids", "line_numbers", "instances"))
            self._file_ids[own] = renumber(arrays["file_ids"], part.files, self._files)
            self._numbers[own], self._instances[own] = arrays["line_numbers"], arrays["instances"]

    def of(self, record: int) -> RecordLocation:
        name, has_lines = self._files[self._file_ids[record]]
        return RecordLocation(name, int(self._numbers[record]), has_lines, int(self._instances[record]) or None)

    def each(self, wanted: BoolArray, others: IntArray, kind: LeftOutKind, data: DataConfig) -> Iterator[Rejected]:
        """The wanted records, each as a duplicate of another."""
        at = 0
        for part in self._parts:
            own = np.flatnonzero(wanted[at : at + part.num_records])
            if len(own):
                arrays = part.read_records(("task_ids", "source_ids", "record_ids"))
                columns = [array[own].tolist() for array in arrays.values()]
                for record, task, source, index in zip((at + own).tolist(), *columns, strict=True):
                    reason = f"{kind} of {self.of(int(others[record]))}"
                    name = data.sources[source].name
                    yield Rejected(name, index, self.of(record), reason, kind, part.tasks[task])
            at += part.num_records
