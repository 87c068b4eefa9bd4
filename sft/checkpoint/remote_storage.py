"""Checkpoints in object storage, which has no rename: the manifest is uploaded last, which publishes the checkpoint.

    step-00000200/attempt-0001-0003/rank-*.safetensors + receipts     uploads, absent as long as no manifest names them
    step-00000200/manifest.json                                       names them, with that prefix

Ranks write and read through temporary folders of their own machines. The storage must guarantee that an object is there
whole or not at all, and that a listing shows earlier uploads. Listings never come from fsspec's cache, because other
ranks upload objects, too.
"""

import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any

from sft.atomic_files import MANIFEST, RECEIPT, DamagedError, describe_file, read_manifest, sign_manifest
from sft.checkpoint.object_storage import Moved, open_file_system, os_errors
from sft.checkpoint.storage import Receipts, SaveKey, WriteFile, damaged_names, step_name, steps_of
from sft.progress import Progress
from sft.url_secrets import without_secrets

_COPIES_AT_A_TIME = 16


class RemoteStorage:
    """A `CheckpointStorage` below a URL that fsspec knows."""

    def __init__(self, url: str) -> None:
        """Check the storage; nothing is written yet.

        Raises:
            UserError: it cannot be used (see `open_file_system`).
        """
        self._shown = without_secrets(url).rstrip("/")
        self._files, self._root = open_file_system(url)
        self.progress = Progress()
        self._moved = Moved(self.progress.tell)

    def steps(self) -> list[int]:
        """Steps with a manifest; others are unfinished uploads; see `CheckpointStorage`."""
        return [step for step in steps_of(self._names(self._root)) if self.is_published(step)]

    def is_published(self, step: int) -> bool:
        """Whether there is a manifest; see `CheckpointStorage`."""
        with os_errors(self._shown):
            self._files.invalidate_cache()
            return bool(self._files.exists(self._path(step, MANIFEST)))

    def where(self, step: int) -> str:
        """The URL; see `CheckpointStorage`."""
        return f"{self._shown}/{step_name(step)}"

    def write_part(self, key: SaveKey, name: str, write: WriteFile) -> None:
        """Write a temporary file and upload it, then its receipt; see `CheckpointStorage`."""
        with tempfile.TemporaryDirectory(prefix="sft-checkpoint-") as folder:
            path = Path(folder) / name
            receipt = {**write(path), **describe_file(path, self.progress.tell)}
            remote = self._path(key.step, f"{key}/{name}")
            with os_errors(self._shown):
                # No makedirs first: object storage needs no folders, and s3fs would create a misspelt bucket.
                self._files.put_file(str(path), remote, callback=self._moved)
                self._files.pipe_file(remote + RECEIPT, json.dumps(receipt).encode())

    def num_parts(self, key: SaveKey) -> int:
        """Receipt objects; see `CheckpointStorage`."""
        return len(self._receipt_names(key))

    def receipts(self, key: SaveKey) -> Receipts:
        """The receipt objects, by the file's name with the prefix of the save; see `CheckpointStorage`."""
        with os_errors(self._shown):
            return {
                f"{key}/{name.removesuffix(RECEIPT)}": json.loads(
                    self._files.cat_file(self._path(key.step, f"{key}/{name}"))
                )
                for name in self._receipt_names(key)
            }

    def publish(self, key: SaveKey, manifest: Mapping[str, Any], receipts: Receipts) -> None:
        """Put the manifest; see `CheckpointStorage`."""
        if self.is_published(key.step):
            # Published by an earlier try whose answer was lost, or by another save, which leaves something to remove.
            self.discard(key)
            return
        files = {name: {k: receipt[k] for k in ("num_bytes", "sha256")} for name, receipt in receipts.items()}
        content = json.dumps(sign_manifest({**manifest, "files": files}), indent=1).encode()
        with os_errors(self._shown):
            self._files.pipe_file(self._path(key.step, MANIFEST), content)

    def discard(self, key: SaveKey) -> None:
        """Remove the save's uploads, unless it is published after all; see `CheckpointStorage`."""
        if not self._may_be_named(key.step, str(key)):
            self._remove(self._path(key.step, str(key)))

    def discard_unfinished(self, attempt: int) -> None:
        """Remove other attempts' uploads that no manifest names; see `CheckpointStorage`."""
        for step in steps_of(self._names(self._root)):
            for name in self._names(self._path(step)):
                is_upload = name.startswith("attempt-") and not name.startswith(f"attempt-{attempt:04d}-")
                if is_upload and not self._may_be_named(step, name):
                    self._remove(self._path(step, name))

    def delete(self, step: int) -> None:
        """Remove the manifest, then the rest; see `CheckpointStorage`."""
        with os_errors(self._shown):
            self._files.rm_file(self._path(step, MANIFEST))
        self._remove(self._path(step))

    def quarantine(self, step: int) -> str:
        """Copy all of it under the other name, then remove it; see `CheckpointStorage`."""
        taken = set(self._names(self._root))
        free = next(name for name in damaged_names(step) if name not in taken)
        source = self._path(step)
        with os_errors(self._shown):
            # Not mv: it would also copy pseudo-folders, which s3fs does not find.
            files = self._files.find(source)
            copies = [f"{self._root}/{free}/{PurePosixPath(file).relative_to(source)}" for file in files]
            for start in range(0, len(files), _COPIES_AT_A_TIME):
                part = slice(start, start + _COPIES_AT_A_TIME)
                self._files.copy(files[part], copies[part], on_error="raise")
                self.progress.tell()
        self.delete(step)
        return f"{self._shown}/{free}"

    def damaged(self) -> list[str]:
        """The copies; see `CheckpointStorage`."""
        return [f"{self._shown}/{name}" for name in self._names(self._root) if name.startswith("damaged-step-")]

    @contextmanager
    def opened(self, step: int, names: Iterable[str] = (MANIFEST,)) -> Iterator[Path]:
        """A temporary folder, gone at the end; see `CheckpointStorage`."""
        with tempfile.TemporaryDirectory(prefix="sft-checkpoint-") as folder:
            self.fetch(step, names, Path(folder))
            yield Path(folder)

    def fetch(self, step: int, names: Iterable[str], folder: Path) -> None:
        """Download; see `CheckpointStorage`."""
        for name in names:
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                with os_errors(self._shown):
                    self._files.get_file(self._path(step, name), str(path), callback=self._moved)
            except FileNotFoundError:
                # A started download may have made the file. The check reports that it is missing.
                path.unlink(missing_ok=True)

    def _path(self, step: int, name: str = "") -> str:
        return f"{self._root}/{step_name(step)}/{name}".rstrip("/")

    def _receipt_names(self, key: SaveKey) -> list[str]:
        return [name for name in self._names(self._path(key.step, str(key))) if name.endswith(RECEIPT)]

    def _names(self, path: str) -> list[str]:
        with os_errors(self._shown):
            self._files.invalidate_cache()
            try:
                found = self._files.ls(path, detail=False)
            except FileNotFoundError:
                return []
        return sorted(str(name).rstrip("/").rpartition("/")[2] for name in found)

    def _may_be_named(self, step: int, prefix: str) -> bool:
        """Whether uploads may belong to the published checkpoint; if its manifest is damaged, any may."""
        if not self.is_published(step):
            return False
        try:
            with self.opened(step) as folder:
                return any(PurePosixPath(name).parts[0] == prefix for name in read_manifest(folder)["files"])
        except DamagedError:
            return True

    def _remove(self, path: str) -> None:
        with os_errors(self._shown), suppress(FileNotFoundError):
            self._files.invalidate_cache()
            self._files.rm(path, recursive=True)
