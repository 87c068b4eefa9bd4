"""Finds records that are nearly equal, from their MinHash signatures, with little memory for a record.

Records are compared only if their signatures agree in all places of at least one band (locality-sensitive hashing;
Leskovec et al., Mining of Massive Datasets, chapter 3). Signatures, their bands' hashes and the groups of records that
agree in a band lie in files of a scratch folder. In memory is, of one band at a time, a hash for each record; then, for
each band in which a record agrees with another, a few bytes. A record that agrees with no other costs one byte.

    signatures ──▶ a hash for each band ──▶ groups that agree in a band ──▶ each record, in order, beside those kept
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sft.data.duplicates import NUM_PERMUTATIONS, Hashes, equal_groups
from sft.data.mapped_arrays import Stretch, stretch_reader
from sft.schema import BoolArray, IntArray

Signatures = npt.NDArray[np.uint32]
"""(num_records, NUM_PERMUTATIONS)"""

_CANDIDATE_PROBABILITY = 0.95
"""The probability that two records exactly as similar as the config asks for are compared at all."""
_FACTOR = np.uint64(0x9E3779B97F4A7C15)
_ROWS_AT_ONCE = 1 << 14
_ALONE = -1
"""In place of a group: the record agrees with no other in this band."""


def find_near_duplicates(
    signatures: Callable[[], Iterator[Signatures]], alive: BoolArray, similarity: float, scratch: Path
) -> IntArray:
    """For each record, (num_records,), the first kept record that is similar enough to it: itself where it is kept.

    Each record, in order, is compared with those kept so far that agree with it in at least one band of the signature.
    Bands are as long as they can be while 95 % of the pairs with just this similarity are compared. More similar pairs
    are compared nearly always, equal ones always.

    Args:
        signatures: gives the signatures of all records, piece after piece, in the order of the records; called twice.
        alive: (num_records,), False for records that are left out already. They are compared with nothing.
        similarity: above 0 and at most 1, as the share of equal places in two signatures.
        scratch: an empty folder. It gets up to 8 B for each record and band, and the signatures of records that agree.
    """
    bands = _bands(similarity)
    hash_files = [scratch / f"hashes-{number}" for number in range(len(bands))]
    _write_hashes(_only(signatures(), alive), bands, hash_files)
    agree = np.zeros(np.count_nonzero(alive), dtype=bool)
    for file in hash_files:
        hashes = np.fromfile(file, np.uint64)
        for members, starts in equal_groups(hashes):
            sizes = np.diff(starts)
            agree[members[np.repeat(sizes > 1, sizes)]] = True
    records = np.flatnonzero(alive)
    compared = np.zeros(len(alive), dtype=bool)
    compared[records[agree]] = True
    firsts = np.arange(len(alive))
    if agree.any():
        group_files, num_cells = _write_groups(hash_files, agree, scratch)
        rows = _write_rows(_only(signatures(), compared), scratch / "signatures")
        found = _compare(rows, group_files, num_cells, similarity * NUM_PERMUTATIONS)
        firsts[compared] = records[agree][found]
    return firsts


def _bands(similarity: float) -> list[slice]:
    """The places of each band; at least two bands."""
    for length in range(NUM_PERMUTATIONS // 2, 0, -1):
        number = NUM_PERMUTATIONS // length
        if length == 1 or 1 - (1 - similarity**length) ** number >= _CANDIDATE_PROBABILITY:
            return [slice(i * length, (i + 1) * length) for i in range(number)]
    raise AssertionError


def _only(signatures: Iterator[Signatures], wanted: BoolArray) -> Iterator[Signatures]:
    at = 0
    for piece in signatures:
        yield piece[wanted[at : at + len(piece)]]
        at += len(piece)


def _write_hashes(signatures: Iterator[Signatures], bands: Sequence[slice], paths: Sequence[Path]) -> None:
    """Write a file for each band, with a hash of the band's places for each record."""
    with ExitStack() as stack:
        files = [stack.enter_context(path.open("wb")) for path in paths]
        for piece in signatures:
            for band, file in zip(bands, files, strict=True):
                hashes: Hashes = np.zeros(len(piece), dtype=np.uint64)
                for place in range(band.start, band.stop):
                    hashes = (hashes ^ piece[:, place]) * _FACTOR
                    hashes ^= hashes >> np.uint64(32)
                file.write(hashes.data)


def _write_groups(hash_files: Sequence[Path], agree: BoolArray, scratch: Path) -> tuple[list[Path], int]:
    """Write a file for each band, with the group of each record that agrees with another in any band.

    A group is the place of its first cell among the cells of all groups. It has a cell more than members.

    Returns:
        The files, and the number of cells.
    """
    paths, num_cells = [], 0
    for number, path in enumerate(hash_files):
        hashes = np.fromfile(path, np.uint64)[agree]
        groups = np.full(len(hashes), _ALONE)
        for members, starts in equal_groups(hashes):
            sizes = np.diff(starts)
            cells = np.where(sizes > 1, sizes + 1, 0)
            first_cells = num_cells + np.cumsum(cells) - cells
            groups[members] = np.repeat(np.where(sizes > 1, first_cells, _ALONE), sizes)
            num_cells += int(cells.sum())
        paths.append(scratch / f"groups-{number}")
        groups.tofile(paths[-1])
    return paths, num_cells


def _write_rows(signatures: Iterator[Signatures], path: Path) -> Stretch:
    with path.open("wb") as file:
        for piece in signatures:
            file.write(np.ascontiguousarray(piece).data)
    return stretch_reader(np.memmap(path, np.uint32, mode="r"))


def _compare(read: Stretch, group_files: Sequence[Path], num_cells: int, needed: float) -> IntArray:
    """For each record, in order, the first of those kept before it that equals it in `needed` places, or itself."""
    groups_of = [stretch_reader(np.memmap(path, np.int64, mode="r")) for path in group_files]
    num_records = group_files[0].stat().st_size // 8
    firsts = np.arange(num_records)
    # Of each group: the number of its members that are kept so far, and then these.
    cells = np.zeros(num_cells, np.min_scalar_type(num_records))
    for start in range(0, num_records, _ROWS_AT_ONCE):
        stop = min(start + _ROWS_AT_ONCE, num_records)
        groups = np.column_stack([of_band(start, stop) for of_band in groups_of])
        signatures = read(start * NUM_PERMUTATIONS, stop * NUM_PERMUTATIONS).reshape(-1, NUM_PERMUTATIONS)
        for i, (own, signature) in enumerate(zip(groups, signatures, strict=True), start):
            own = own[own != _ALONE]
            nums_kept = cells[own]
            found = _first_similar(signature, _kept(cells, own, nums_kept), read, needed)
            if found is not None:
                firsts[i] = found
            else:
                cells[own + 1 + nums_kept] = i
                cells[own] += 1
    return firsts


def _kept(cells: IntArray, groups: IntArray, nums_kept: IntArray) -> list[int]:
    """The kept members of these groups, in order."""
    if not nums_kept.any():
        return []
    ranges = zip(groups.tolist(), nums_kept.tolist(), strict=True)
    return sorted({kept for group, count in ranges for kept in cells[group + 1 : group + 1 + count].tolist()})


def _first_similar(signature: Signatures, candidates: Sequence[int], read: Stretch, needed: float) -> int | None:
    for candidate in candidates:
        other = read(candidate * NUM_PERMUTATIONS, (candidate + 1) * NUM_PERMUTATIONS)
        if np.count_nonzero(other == signature) >= needed:
            return candidate
    return None
