"""Examples on disk: a few flat arrays, memory-mapped, whose resident size does not grow with the store.

    tokens (num_tokens,) · loss_mask (num_tokens,) · offsets (num_examples + 1,)
    num_supervised, task_ids, source_ids, record_ids, prompt_hashes: (num_examples,) each

A store is built part by part, so that a killed preparation goes on where it was, and then published whole.
"""

import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sft.atomic_files import publish_folder, read_json, read_manifest, write_json
from sft.schema import BoolArray, Example, IntArray

STORE_VERSION = 1
"""Part of every fingerprint: raised when the code makes other examples of the same input."""

_TOKEN_ARRAYS = ("tokens", "loss_mask")
_EXAMPLE_ARRAYS = ("lengths", "num_supervised", "task_ids", "source_ids", "record_ids", "prompt_hashes")


@dataclass(frozen=True, slots=True)
class StoredExample:
    """An example with what the plan needs to know of it; `prompt_hash` is equal for equal prompts."""

    example: Example
    task: str
    source_id: int
    record_id: int
    prompt_hash: int


@dataclass(frozen=True)
class TokenStore:
    """A published store, opened for reading."""

    path: Path
    manifest: Mapping[str, Any]
    tokens: IntArray
    loss_mask: BoolArray
    offsets: IntArray
    num_supervised: IntArray
    task_ids: IntArray
    source_ids: IntArray
    record_ids: IntArray
    prompt_hashes: npt.NDArray[np.uint64]

    @classmethod
    def open(cls, path: Path) -> "TokenStore":
        """Map the arrays of the store that is published at `path`."""
        arrays = {
            name: np.load(path / f"{name}.npy", mmap_mode="r")
            for name in (*_TOKEN_ARRAYS, "offsets", *_EXAMPLE_ARRAYS[1:])
        }
        return cls(path, read_manifest(path), **arrays)

    def __len__(self) -> int:
        """Number of examples."""
        return len(self.num_supervised)

    @property
    def tasks(self) -> list[str]:
        """The tasks' names; `task_ids` points into them."""
        return list(self.manifest["tasks"])

    @property
    def lengths(self) -> IntArray:
        """Tokens of each example: (num_examples,)."""
        return np.diff(self.offsets)

    def example(self, example_id: int) -> Example:
        """One example, copied out of the map."""
        part = slice(int(self.offsets[example_id]), int(self.offsets[example_id + 1]))
        return Example(np.array(self.tokens[part]), np.array(self.loss_mask[part]))


def write_part(
    part: Path, stored: Sequence[StoredExample], counts: Mapping[str, Any], token_dtype: np.dtype[Any]
) -> None:
    """Write one part of a store that is being built. It is there when its `counts.json` is."""
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    tasks = sorted({s.task for s in stored})
    task_ids = {task: i for i, task in enumerate(tasks)}
    examples = [s.example for s in stored]
    arrays = {
        "tokens": _concatenate([e.input_ids for e in examples], token_dtype),
        "loss_mask": _concatenate([e.loss_mask for e in examples], np.dtype(bool)),
        "lengths": np.array([len(e.input_ids) for e in examples], dtype=np.int64),
        "num_supervised": np.array([int(e.loss_mask.sum()) for e in examples], dtype=np.int32),
        "task_ids": np.array([task_ids[s.task] for s in stored], dtype=np.int32),
        "source_ids": np.array([s.source_id for s in stored], dtype=np.int32),
        "record_ids": np.array([s.record_id for s in stored], dtype=np.int64),
        "prompt_hashes": np.array([s.prompt_hash for s in stored], dtype=np.uint64),
    }
    for name, array in arrays.items():
        np.save(part / f"{name}.npy", array)
    write_json(part / "counts.json", {**counts, "tasks": tasks})


def read_part_counts(part: Path) -> dict[str, Any] | None:
    """What was counted when the part was made; None where it is not there yet."""
    path = part / "counts.json"
    return dict(read_json(path)) if path.is_file() else None


def publish_store(parts: Sequence[Path], aside: Path, final: Path, manifest: Mapping[str, Any]) -> None:
    """Join the parts, in order, into the store at `final`. One part at a time is in memory."""
    tasks = sorted({task for part in parts for task in read_json(part / "counts.json")["tasks"]})
    lengths = np.concatenate([np.load(part / "lengths.npy") for part in parts])
    np.save(aside / "offsets.npy", np.concatenate([[0], np.cumsum(lengths)]))
    for name in (*_TOKEN_ARRAYS, *_EXAMPLE_ARRAYS[1:]):
        first = np.load(parts[0] / f"{name}.npy", mmap_mode="r")
        num_rows = int(lengths.sum()) if name in _TOKEN_ARRAYS else len(lengths)
        joined = np.lib.format.open_memmap(aside / f"{name}.npy", mode="w+", dtype=first.dtype, shape=(num_rows,))
        at = 0
        for part in parts:
            rows = np.load(part / f"{name}.npy")
            if name == "task_ids":
                names = read_json(part / "counts.json")["tasks"]
                rows = np.array([tasks.index(t) for t in names], dtype=np.int32)[rows]
            joined[at : at + len(rows)] = rows
            at += len(rows)
        joined.flush()
    publish_folder(aside, final, {**manifest, "tasks": tasks})


def _concatenate(arrays: Iterable[npt.NDArray[Any]], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    return np.concatenate([np.empty(0, dtype), *arrays]).astype(dtype, copy=False)
