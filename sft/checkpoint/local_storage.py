"""Checkpoints in a folder that all ranks see: written aside, then renamed.

    .step-00000200.attempt-0001-0003.partial/rank-*.safetensors + receipts ──rename──▶ step-00000200/

A checkpoint is renamed before it is deleted. So a `step-*` folder without a manifest was once published, and is
damaged.
"""

import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sft.atomic_files import count_receipts, is_published, leave_receipt, publish_folder, read_receipts, remove_receipts
from sft.checkpoint.storage import Receipts, SaveKey, WriteFile, damaged_names, step_name, steps_of
from sft.progress import Progress


def checkpoint_path(folder: Path, step: int) -> Path:
    """The folder of the checkpoint after `step` updates."""
    return folder / step_name(step)


def published_steps(folder: Path) -> list[int]:
    """The steps of all published checkpoints, in order."""
    return [step for step in LocalStorage(folder).steps() if is_published(checkpoint_path(folder, step))]


class LocalStorage:
    """A `CheckpointStorage` in a folder of a local or shared file system."""

    def __init__(self, folder: Path) -> None:
        """The folder is made when saving begins."""
        self._folder = folder
        self.progress = Progress()

    def steps(self) -> list[int]:
        """All `step-*` folders; see `CheckpointStorage`."""
        return steps_of(path.name for path in self._folder.glob("step-*"))

    def is_published(self, step: int) -> bool:
        """Whether there is a manifest; see `CheckpointStorage`."""
        return is_published(checkpoint_path(self._folder, step))

    def where(self, step: int) -> str:
        """The folder; see `CheckpointStorage`."""
        return str(checkpoint_path(self._folder, step))

    def write_part(self, key: SaveKey, name: str, write: WriteFile) -> None:
        """Write into the folder aside; see `CheckpointStorage`."""
        aside = self._aside(key)
        # The parent folder was there at the start. If it is gone, the save fails, and the folder is not made anew.
        self._folder.mkdir(exist_ok=True)
        aside.mkdir(exist_ok=True)
        leave_receipt(aside / name, write(aside / name), self.progress.tell)

    def num_parts(self, key: SaveKey) -> int:
        """Receipts in the folder aside; see `CheckpointStorage`."""
        return count_receipts(self._aside(key))

    def receipts(self, key: SaveKey) -> Receipts:
        """Receipts in the folder aside; see `CheckpointStorage`."""
        return read_receipts(self._aside(key))

    def publish(self, key: SaveKey, manifest: Mapping[str, Any], receipts: Receipts) -> None:
        """Rename the folder aside; see `CheckpointStorage`."""
        if self.is_published(key.step):
            self.discard(key)
            return
        aside = self._aside(key)
        for name, receipt in receipts.items():
            if (num_bytes := (aside / name).stat().st_size) != receipt["num_bytes"]:
                raise OSError(f"{aside / name} has {num_bytes} bytes; its receipt says {receipt['num_bytes']}")
        remove_receipts(aside)
        hashes = {name: receipt["sha256"] for name, receipt in receipts.items()}
        publish_folder(aside, checkpoint_path(self._folder, key.step), manifest, hashes)

    def discard(self, key: SaveKey) -> None:
        """Delete the folder aside; see `CheckpointStorage`."""
        shutil.rmtree(self._aside(key), ignore_errors=True)

    def discard_unfinished(self, attempt: int) -> None:
        """Make the folder, delete what other attempts left aside or half deleted; see `CheckpointStorage`."""
        self._folder.mkdir(parents=True, exist_ok=True)
        for partial in self._folder.glob(".step-*.partial"):
            if f".attempt-{attempt:04d}-" not in partial.name:
                shutil.rmtree(partial, ignore_errors=True)

    def delete(self, step: int) -> None:
        """Rename, then delete; see `CheckpointStorage`."""
        going = self._folder / f".{step_name(step)}.deleted.partial"
        if going.exists():
            shutil.rmtree(going)
        checkpoint_path(self._folder, step).rename(going)
        shutil.rmtree(going)

    def quarantine(self, step: int) -> str:
        """Rename the folder; see `CheckpointStorage`."""
        free = next(path for name in damaged_names(step) if not (path := self._folder / name).exists())
        return str(checkpoint_path(self._folder, step).rename(free))

    def damaged(self) -> list[str]:
        """The renamed folders; see `CheckpointStorage`."""
        return sorted(map(str, self._folder.glob("damaged-step-*")))

    @contextmanager
    def opened(self, step: int, names: Iterable[str] = ()) -> Iterator[Path]:
        """The checkpoint's own folder, with all of its files; see `CheckpointStorage`."""
        yield checkpoint_path(self._folder, step)

    def fetch(self, step: int, names: Iterable[str], folder: Path) -> None:
        """Do nothing: the files are there; see `CheckpointStorage`."""

    def _aside(self, key: SaveKey) -> Path:
        return self._folder / f".{step_name(key.step)}.{key}.partial"
