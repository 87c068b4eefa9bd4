"""The parts of a token store: the examples of one block in one file, and the joining of all parts.

A part is made as bytes, wherever its block was prepared, and exists when its file does. So a preparation that was
killed continues behind the existing parts. Joining leaves out duplicates and holds one part at a time in memory.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from sft.atomic_files import publish_folder
from sft.schema import BoolArray, Example, IntArray, RecordLocation, Rejected

_TOKEN_ARRAYS = ("tokens", "loss_mask")
_ROW_ARRAYS = ("lengths", "num_supervised", "task_ids", "source_ids", "record_ids", "prompt_hashes")
_PLACE_ARRAYS = ("file_ids", "line_numbers", "instances")


@dataclass(frozen=True, slots=True)
class PreparedRecord:
    """A kept record, with its examples and the data that the plan and the search for duplicates need."""

    examples: Sequence[Example]
    """One, or one for each answer that a template shows in full only while it is the last."""
    task: str
    source_id: int
    record_id: int
    where: RecordLocation
    prompt_hash: int
    content_hash: int
    signature: npt.NDArray[Any] | None
    """MinHash, for near duplicates: (num_permutations,)."""
    is_shortened: bool = False
    is_repaired: bool = False


@dataclass(frozen=True, slots=True)
class PartCounts:
    """What became of the records of one block."""

    source: str
    num_read: int
    num_shortened: int
    num_repaired: int
    num_markers: int
    notes: tuple[str, ...]
    rejected: tuple[Rejected, ...]


def encode_part(kept: Sequence[PreparedRecord], counts: PartCounts, token_dtype: np.dtype[Any]) -> bytes:
    """The content of a part's file."""
    tasks, files = sorted({r.task for r in kept}), sorted({(r.where.file, r.where.is_line) for r in kept})
    task_ids, file_ids = ({name: i for i, name in enumerate(names)} for names in (tasks, files))
    rows = [(record, example) for record in kept for example in record.examples]
    arrays = {
        "tokens": _concatenate([e.input_ids for _, e in rows], token_dtype),
        "loss_mask": _concatenate([e.loss_mask for _, e in rows], np.dtype(bool)),
        "lengths": np.array([len(e.input_ids) for _, e in rows], dtype=np.int64),
        "num_supervised": np.array([np.count_nonzero(e.loss_mask) for _, e in rows], dtype=np.int32),
        "task_ids": np.array([task_ids[r.task] for r, _ in rows], dtype=np.int32),
        "source_ids": np.array([r.source_id for r, _ in rows], dtype=np.int32),
        "record_ids": np.array([r.record_id for r, _ in rows], dtype=np.int64),
        "prompt_hashes": np.array([r.prompt_hash for r, _ in rows], dtype=np.uint64),
        "file_ids": np.array([file_ids[r.where.file, r.where.is_line] for r, _ in rows], dtype=np.int32),
        "line_numbers": np.array([r.where.number for r, _ in rows], dtype=np.int64),
        "instances": np.array([r.where.instance or 0 for r, _ in rows], dtype=np.int32),
        "num_rows": np.array([len(r.examples) for r in kept], dtype=np.int64),
        "content_hashes": np.array([r.content_hash for r in kept], dtype=np.uint64),
    }
    signatures = [r.signature for r in kept if r.signature is not None]
    if signatures:
        arrays["signatures"] = np.stack(signatures)
    rejected = [[r.source, r.index, r.where, r.reason, r.kind, r.task] for r in counts.rejected]
    about = {
        "tasks": tasks,
        "files": files,
        "source": counts.source,
        "num_read": counts.num_read,
        "num_shortened": counts.num_shortened,
        "num_repaired": counts.num_repaired,
        "num_markers": counts.num_markers,
        "notes": counts.notes,
        "rejected": rejected,
    }
    return save(arrays, {"about": json.dumps(about)})


class StorePart:
    """A part's file, opened for reading."""

    def __init__(self, path: Path) -> None:
        """Raises `SafetensorError` where the file is not whole."""
        self.path = path
        with safe_open(path, "np") as file:
            about = json.loads(file.metadata()["about"])
            self.num_rows: IntArray = file.get_tensor("num_rows")
        self.tasks: list[str] = about["tasks"]
        self.files: list[tuple[str, bool]] = [(name, has_lines) for name, has_lines in about["files"]]
        rejected = tuple(Rejected(s, i, RecordLocation(*where), *rest) for s, i, where, *rest in about["rejected"])
        counted = {name: about[name] for name in about if name.startswith("num_")}
        self.counts = PartCounts(about["source"], **counted, notes=tuple(about["notes"]), rejected=rejected)

    def read(self, name: str) -> npt.NDArray[Any]:
        """One of its arrays."""
        with safe_open(self.path, "np") as file:
            array: npt.NDArray[Any] = file.get_tensor(name)
        return array

    def read_records(self, name: str) -> npt.NDArray[Any]:
        """One of its arrays of rows, at the first row of each record: (num_records,)."""
        first_rows: IntArray = np.cumsum(self.num_rows) - self.num_rows
        return np.asarray(self.read(name)[first_rows])


def open_part(path: Path) -> StorePart | None:
    """The part; None where it is missing, or was cut off when the machine went down."""
    try:
        return StorePart(path)
    except (FileNotFoundError, SafetensorError):
        return None


def read_all(parts: Sequence[StorePart], name: str) -> npt.NDArray[Any]:
    """An array of all parts, concatenated. Not for tokens: it is in memory whole."""
    return np.concatenate([part.read(name) for part in parts])


def describe_records(parts: Sequence[StorePart], records: IntArray) -> list[tuple[RecordLocation, str, int, int]]:
    """Location, task, source and index in the source of kept records, given by their numbers over all parts."""
    described: dict[int, tuple[RecordLocation, str, int, int]] = {}
    first = 0
    for part in parts:
        inside = np.unique(records[(records >= first) & (records < first + len(part.num_rows))])
        if len(inside):
            names = (*_PLACE_ARRAYS, "task_ids", "source_ids", "record_ids")
            columns = [part.read_records(name)[inside - first].tolist() for name in names]
            for record, file, number, instance, task, source, index in zip(inside.tolist(), *columns, strict=True):
                place = RecordLocation(part.files[file][0], number, part.files[file][1], instance or None)
                described[record] = (place, part.tasks[task], source, index)
        first += len(part.num_rows)
    return [described[record] for record in records.tolist()]


def publish_store(
    parts: Sequence[StorePart],
    equal_to: IntArray,
    token_keys: npt.NDArray[np.uint64],
    aside: Path,
    final: Path,
    manifest: Mapping[str, Any],
) -> None:
    """Join the parts, in order, into the store at `final`.

    Args:
        parts: all of them, in order.
        equal_to: (num_records,), for each record of the parts the kept record that it equals: itself if it is kept.
        token_keys: see `TokenStore`.
        aside: the folder to write into; it may hold other files of the store.
        final: where the store is published.
        manifest: the manifest without its tasks and files, which are added here.
    """
    keep = equal_to == np.arange(len(equal_to))
    kept_rows = list(_split_rows(parts, keep))
    lengths = np.concatenate([part.read("lengths")[rows] for part, rows in zip(parts, kept_rows, strict=True)])
    tasks = sorted({task for part in parts for task in part.tasks})
    files = sorted({file for part in parts for file in part.files})
    np.save(aside / "offsets.npy", np.concatenate([[0], np.cumsum(lengths)]))
    np.save(aside / "token_keys.npy", token_keys)
    np.save(aside / "duplicates.npy", _list_duplicates(parts, equal_to, tasks))
    prompts = np.concatenate([part.read_records("prompt_hashes") for part in parts])
    np.save(aside / "duplicate_prompts.npy", prompts[~keep])
    for name in (*_TOKEN_ARRAYS, *_ROW_ARRAYS[1:], *_PLACE_ARRAYS):
        num_rows = int(lengths.sum()) if name in _TOKEN_ARRAYS else len(lengths)
        dtype = parts[0].read(name).dtype
        joined = np.lib.format.open_memmap(aside / f"{name}.npy", mode="w+", dtype=dtype, shape=(num_rows,))
        at = 0
        for part, rows in zip(parts, kept_rows, strict=True):
            array = part.read(name)
            array = array[np.repeat(rows, part.read("lengths")) if name in _TOKEN_ARRAYS else rows]
            if name == "task_ids":
                array = _renumber(array, part.tasks, tasks)
            elif name == "file_ids":
                array = _renumber(array, part.files, files)
            joined[at : at + len(array)] = array
            at += len(array)
        joined.flush()
    named = [{"name": name, "has_lines": has_lines} for name, has_lines in files]
    publish_folder(aside, final, {**manifest, "num_examples": len(lengths), "tasks": tasks, "source_files": named})


def _split_rows(parts: Sequence[StorePart], keep: BoolArray) -> Iterator[BoolArray]:
    """For each part, which of its rows belong to records that are kept."""
    at = 0
    for part in parts:
        yield np.repeat(keep[at : at + len(part.num_rows)], part.num_rows)
        at += len(part.num_rows)


def _list_duplicates(parts: Sequence[StorePart], equal_to: IntArray, tasks: Sequence[str]) -> IntArray:
    """(num_duplicates, 3): see `TokenStore`."""
    keep = equal_to == np.arange(len(equal_to))
    num_rows = np.concatenate([part.num_rows for part in parts]) * keep
    first_rows = np.cumsum(num_rows) - num_rows  # in the store, of each record
    task_ids = np.concatenate([_renumber(part.read_records("task_ids"), part.tasks, tasks) for part in parts])
    source_ids = np.concatenate([part.read_records("source_ids") for part in parts])
    return np.asarray(np.column_stack([first_rows[equal_to], task_ids, source_ids])[~keep].astype(np.int64))


def _renumber(ids: IntArray, old: Sequence[Any], new: Sequence[Any]) -> IntArray:
    """Numbers into `old`, as numbers into `new`."""
    places = {name: i for i, name in enumerate(new)}
    return np.array([places[name] for name in old], dtype=ids.dtype)[ids] if len(old) else ids


def _concatenate(arrays: Sequence[npt.NDArray[Any]], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    return np.concatenate([np.empty(0, dtype), *arrays]).astype(dtype, copy=False)
