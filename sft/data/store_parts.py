"""The parts of a token store: the examples of one block in one file, and the joining of all parts.

A part is made as bytes, wherever its block was prepared, and exists when its file does. So a preparation that was
killed continues behind the existing parts. Joining leaves out duplicates and holds one part at a time in memory.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from sft.atomic_files import publish_folder
from sft.data.array_files import written_array
from sft.schema import Example, IntArray, RecordLocation, Rejected

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
    made: tuple[tuple[str, str, int], ...] = ()
    """What is counted of records that need an approval (see `sft.data.made_records`)."""


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
        "made": counts.made,
    }
    return save(arrays, {"about": json.dumps(about)})


class StorePart:
    """A part's file. Only what is small is kept of it: there may be tens of thousands of parts."""

    def __init__(self, path: Path) -> None:
        """Raises `SafetensorError` where the file is not whole."""
        self.path = path
        with safe_open(path, "np") as file:
            about = json.loads(file.metadata()["about"])
            (self.num_records,) = file.get_slice("num_rows").get_shape()
        self.source: str = about["source"]
        self.num_read: int = about["num_read"]
        self.tasks: list[str] = [sys.intern(task) for task in about["tasks"]]
        self.files: list[tuple[str, bool]] = [(sys.intern(name), has_lines) for name, has_lines in about["files"]]

    def read_counts(self) -> PartCounts:
        """What became of the records, with each that was rejected."""
        with safe_open(self.path, "np") as file:
            about = json.loads(file.metadata()["about"])
        rejected = tuple(Rejected(s, i, RecordLocation(*where), *rest) for s, i, where, *rest in about["rejected"])
        counted = {name: about[name] for name in about if name.startswith("num_")}
        made = tuple((name, value, num) for name, value, num in about.get("made", ()))
        return PartCounts(about["source"], **counted, notes=tuple(about["notes"]), rejected=rejected, made=made)

    def read(self, names: Sequence[str]) -> dict[str, npt.NDArray[Any]]:
        """Some of its arrays, by name."""
        with safe_open(self.path, "np") as file:
            return {name: file.get_tensor(name) for name in names}

    def read_records(self, names: Sequence[str]) -> dict[str, npt.NDArray[Any]]:
        """Some of its arrays of rows, each at the first row of each record: (num_records,)."""
        arrays = self.read((*names, "num_rows"))
        num_rows = arrays.pop("num_rows")
        first_rows = np.cumsum(num_rows) - num_rows
        return {name: array[first_rows] for name, array in arrays.items()}


def open_part(path: Path) -> StorePart | None:
    """The part; None where it is missing, or was cut off when the machine went down."""
    try:
        return StorePart(path)
    except (FileNotFoundError, SafetensorError):
        return None


def read_all(parts: Sequence[StorePart], name: str) -> npt.NDArray[Any]:
    """An array of all parts, concatenated. Not for tokens: it is in memory whole."""
    return np.concatenate([part.read([name])[name] for part in parts])


def files_of(parts: Sequence[StorePart]) -> list[tuple[str, bool]]:
    """The files of all parts, in order: the name, and whether a record of it is a line."""
    return sorted({file for part in parts for file in part.files})


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
    tasks, files = sorted({task for part in parts for task in part.tasks}), files_of(parts)
    keep = equal_to == np.arange(len(equal_to))
    num_rows = read_all(parts, "num_rows")
    lengths = read_all(parts, "lengths")[np.repeat(keep, num_rows)]
    offsets = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=offsets[1:])
    num_examples, num_tokens = len(lengths), int(offsets[-1])
    np.save(aside / "offsets.npy", offsets)
    np.save(aside / "token_keys.npy", token_keys)
    del lengths, offsets
    num_rows *= keep
    first_rows = np.cumsum(num_rows) - num_rows  # in the store, of each record
    del num_rows
    num_duplicates = int(np.count_nonzero(~keep))
    shapes: dict[str, tuple[int, ...]] = dict.fromkeys((*_ROW_ARRAYS[1:], *_PLACE_ARRAYS), (num_examples,))
    shapes |= dict.fromkeys(_TOKEN_ARRAYS, (num_tokens,))
    dtypes = {name: array.dtype for name, array in parts[0].read(tuple(shapes)).items()}
    shapes |= {"duplicates": (num_duplicates, 3), "duplicate_prompts": (num_duplicates,)}
    dtypes |= {"duplicates": np.dtype(np.int64), "duplicate_prompts": np.dtype(np.uint64)}
    with ExitStack() as stack:
        write = {
            name: stack.enter_context(written_array(aside / f"{name}.npy", dtypes[name], shape))
            for name, shape in shapes.items()
        }
        at = 0
        for part in parts:
            own = slice(at, at + part.num_records)
            at = own.stop
            arrays = part.read((*_TOKEN_ARRAYS, *_ROW_ARRAYS, *_PLACE_ARRAYS, "num_rows"))
            arrays["task_ids"] = renumber(arrays["task_ids"], part.tasks, tasks)
            arrays["file_ids"] = renumber(arrays["file_ids"], part.files, files)
            rows_of = arrays.pop("num_rows")
            kept_rows = np.repeat(keep[own], rows_of)
            kept_tokens = np.repeat(kept_rows, arrays.pop("lengths"))
            if not keep[own].all():
                left_out = (np.cumsum(rows_of) - rows_of)[~keep[own]]
                of_record = first_rows[equal_to[own][~keep[own]]]
                its = (arrays[name][left_out] for name in ("task_ids", "source_ids"))
                write["duplicates"](np.column_stack([of_record, *its]))
                write["duplicate_prompts"](arrays["prompt_hashes"][left_out])
            for name, array in arrays.items():
                write[name](array[kept_tokens if name in _TOKEN_ARRAYS else kept_rows])
    named = [{"name": name, "has_lines": has_lines} for name, has_lines in files]
    publish_folder(aside, final, {**manifest, "num_examples": num_examples, "tasks": tasks, "source_files": named})


def renumber(ids: IntArray, old: Sequence[Any], new: Sequence[Any]) -> IntArray:
    """Numbers into `old`, as numbers into `new`."""
    places = {name: i for i, name in enumerate(new)}
    return np.array([places[name] for name in old], dtype=ids.dtype)[ids] if len(old) else ids


def _concatenate(arrays: Sequence[npt.NDArray[Any]], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    return np.concatenate([np.empty(0, dtype), *arrays]).astype(dtype, copy=False)
