"""Where the checkpoints of a stage are kept: a folder that all ranks see, or object storage.

The protocol is what saving, resuming and retention need. How a checkpoint becomes visible as a whole is up to the
storage: a folder is renamed, object storage gets the manifest last.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from sft.atomic_files import MANIFEST
from sft.progress import Progress


class SaveKey(NamedTuple):
    """One save. Each has its own key, so the remains of a failed or killed save never count as part of another."""

    step: int
    attempt: int
    number: int

    def __str__(self) -> str:
        return f"attempt-{self.attempt:04d}-{self.number:04d}"


WriteFile = Callable[[Path], Mapping[str, Any]]
"""Writes a local file and returns what its receipt says besides size and hash."""

Receipts = Mapping[str, Mapping[str, Any]]
"""By the name of a rank's file in the checkpoint: `num_bytes`, `sha256`, and what its writer added."""


class CheckpointStorage(Protocol):
    """The checkpoints of one stage. Every failure raises an `OSError`."""

    progress: Progress
    """Counts what is written, read, hashed, moved and found here, in any thread."""

    def steps(self) -> list[int]:
        """The steps of all checkpoints here, in order, including remains of once published ones."""
        ...

    def is_published(self, step: int) -> bool:
        """Whether the checkpoint has a manifest."""
        ...

    def where(self, step: int) -> str:
        """The checkpoint's path, for messages."""
        ...

    def write_part(self, key: SaveKey, name: str, write: WriteFile) -> None:
        """Write a rank's file, whole and on disk, and then its receipt. May be called again after a failure."""
        ...

    def num_parts(self, key: SaveKey) -> int:
        """How many ranks have written their receipt."""
        ...

    def receipts(self, key: SaveKey) -> Receipts:
        """The receipts of all parts."""
        ...

    def publish(self, key: SaveKey, manifest: Mapping[str, Any], receipts: Receipts) -> None:
        """Make the checkpoint visible as a whole. One that is published already stays as it is."""
        ...

    def discard(self, key: SaveKey) -> None:
        """Remove what a failed save left."""
        ...

    def discard_unfinished(self, attempt: int) -> None:
        """Called when saving begins: remove what saves of other attempts left."""
        ...

    def delete(self, step: int) -> None:
        """Remove a checkpoint so that it is whole or absent at every moment."""
        ...

    def quarantine(self, step: int) -> str:
        """Rename a damaged checkpoint, so that people can look at it and no run uses it; returns where it is."""
        ...

    def damaged(self) -> list[str]:
        """The places of the quarantined checkpoints."""
        ...

    def opened(self, step: int, names: Iterable[str] = (MANIFEST,)) -> AbstractContextManager[Path]:
        """A local folder with these files of the checkpoint, if they are there; `fetch` adds others."""
        ...

    def fetch(self, step: int, names: Iterable[str], folder: Path) -> None:
        """Bring these files of the checkpoint into the opened folder, except missing ones."""
        ...


def step_name(step: int) -> str:
    """The name of a checkpoint: `step-00000200`."""
    return f"step-{step:08d}"


def steps_of(names: Iterable[str]) -> list[int]:
    """The steps of the names that belong to checkpoints, in order."""
    return sorted(int(found[1]) for name in names if (found := re.fullmatch(r"step-(\d{8,})", name)))


def damaged_names(step: int) -> Iterator[str]:
    """Names for a damaged checkpoint, until one is free: `damaged-step-00000200`, then with a number."""
    name, number = f"damaged-{step_name(step)}", 1
    while True:
        yield name if number == 1 else f"{name}-{number}"
        number += 1
