"""Examples on disk: a few flat arrays, memory-mapped, whose resident size does not grow with the store.

    tokens (num_tokens,) · loss_mask (num_tokens,) · offsets (num_examples + 1,)
    num_supervised, task_ids, source_ids, record_ids, prompt_hashes, file_ids, line_numbers, instances: (num_examples,)
    duplicates (num_duplicates, 3): for each left out, the example that it equals, and its own task and source
    duplicate_prompts (num_duplicates,): and the hash of its prompt, which differs for a near duplicate
    token_keys (num_ids,): what a token says, whatever its case and the white space at it (see `sft.data.token_keys`)

A store is published whole, from parts that lie in files (see `sft.data.store_parts`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sft.atomic_files import read_manifest
from sft.errors import UserError
from sft.schema import BoolArray, Example, IntArray, Place

STORE_VERSION = 3
"""Part of every fingerprint: raised when the code makes other examples of the same input."""

_NOT_MAPPED = ("path", "manifest")


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
    file_ids: IntArray
    line_numbers: IntArray
    instances: IntArray
    duplicates: IntArray
    duplicate_prompts: npt.NDArray[np.uint64]
    token_keys: npt.NDArray[np.uint64]

    @classmethod
    def open(cls, path: Path) -> "TokenStore":
        """Map the arrays of the store that is published at `path`.

        Raises:
            UserError: a file is missing or cut off.
        """
        names = [name for name in cls.__dataclass_fields__ if name not in _NOT_MAPPED]
        try:
            return cls(path, read_manifest(path), *(np.load(path / f"{name}.npy", mmap_mode="r") for name in names))
        except (ValueError, FileNotFoundError) as error:
            raise UserError(f"The token store {path} is damaged: {error}. Delete it; it is made again.") from None

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
        start, end = int(self.offsets[example_id]), int(self.offsets[example_id + 1])
        return Example(_read(self.tokens, start, end), _read(self.loss_mask, start, end))

    def place(self, example_id: int) -> Place:
        """Where the example's record can be looked up."""
        file = self.manifest["source_files"][self.file_ids[example_id]]
        instance = int(self.instances[example_id])
        return Place(file["name"], int(self.line_numbers[example_id]), file["has_lines"], instance or None)


def _read(array: npt.NDArray[Any], start: int, end: int) -> npt.NDArray[Any]:
    """A copy of a stretch. Of a mapped file it is read past the map, whose touched pages would stay resident."""
    if isinstance(array, np.memmap) and array.filename:
        at = array.offset + start * array.itemsize
        return np.fromfile(array.filename, array.dtype, end - start, offset=at)
    return np.array(array[start:end])
