"""Examples on disk: a few flat arrays, memory-mapped; the resident memory does not grow with the store.

    tokens (num_tokens,) · loss_mask (num_tokens,) · offsets (num_examples + 1,)
    num_supervised, task_ids, source_ids, record_ids, prompt_hashes, file_ids, line_numbers, instances: (num_examples,)
    duplicates (num_duplicates, 3): for each duplicate left out, the example that it equals, its own task and source
    duplicate_prompts (num_duplicates,): the hash of its prompt, which differs for a near duplicate
    token_keys (num_ids,): a token's text without case and surrounding white space (see `sft.data.token_keys`)

A store is published whole, from parts that lie in files (see `sft.data.store_parts`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sft.atomic_files import read_manifest
from sft.data.mapped_arrays import Stretch, stretch_reader
from sft.errors import UserError
from sft.schema import BoolArray, Example, IntArray, RecordLocation

STORE_VERSION = 7
"""Part of every fingerprint: raised when the code makes other examples from the same input."""

_NOT_MAPPED = ("path", "manifest")


def store_path(cache_dir: Path, name: str) -> Path:
    """The path of the store with this name; the name is the fingerprint of what it is made from."""
    return cache_dir.expanduser() / "tokens" / name


@dataclass(frozen=True, eq=False)  # its arrays are not compared, so it may be a key
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
            raise UserError(f"The token store {path} is damaged: {error}. Delete it to make it again.") from None

    def __len__(self) -> int:
        """Number of examples."""
        return len(self.num_supervised)

    @property
    def tasks(self) -> list[str]:
        """The tasks' names; `task_ids` are indices into them."""
        return list(self.manifest["tasks"])

    @property
    def lengths(self) -> IntArray:
        """Tokens of each example: (num_examples,)."""
        return np.diff(self.offsets)

    def example(self, example_id: int) -> Example:
        """One example."""
        offsets, tokens, loss_mask = self._readers
        start, end = offsets(example_id, example_id + 2).tolist()
        return Example(tokens(start, end), loss_mask(start, end))

    @cached_property
    def _readers(self) -> tuple[Stretch, ...]:
        return stretch_reader(self.offsets), stretch_reader(self.tokens), stretch_reader(self.loss_mask)

    def location(self, example_id: int) -> RecordLocation:
        """Where the example's record can be looked up."""
        file = self.manifest["source_files"][self.file_ids[example_id]]
        instance = int(self.instances[example_id])
        return RecordLocation(file["name"], int(self.line_numbers[example_id]), file["has_lines"], instance or None)
