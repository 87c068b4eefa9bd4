"""Checkpoints in object storage, which has no rename: the manifest is put last, and is the publication.

    step-00000200/attempt-0001-0003/rank-*.safetensors + receipts     uploads, absent as long as no manifest names them
    step-00000200/manifest.json                                       names them, with that prefix

Ranks write and read through temporary folders of their own machines.
"""

import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec
from fsspec.registry import known_implementations

from sft.atomic_files import MANIFEST, RECEIPT, DamagedError, describe_file, read_manifest, sign_manifest
from sft.checkpoint.places import Receipts, SaveKey, WriteFile, damaged_names, step_name, steps_of
from sft.data.reading.locations import without_secrets
from sft.errors import UserError


class RemotePlace:
    """A `Place` below a URL that fsspec knows."""

    def __init__(self, url: str) -> None:
        """Find the file system of the URL; nothing is read or written yet.

        Raises:
            UserError: fsspec does not know the protocol, lacks a package for it, or cannot use the URL.
        """
        self._shown = without_secrets(url).rstrip("/")
        try:
            self._files, root = fsspec.url_to_fs(url)
        except ImportError as error:
            protocol = url.partition("://")[0].rpartition("::")[2]
            package = known_implementations[protocol]["class"].partition(".")[0]
            raise UserError(
                f"checkpoint.dir: {self._shown} needs a package that is not installed ({error}). Install it on all "
                f"machines with `pip install {package}`, or give a folder that all machines see."
            ) from None
        except (ValueError, OSError) as error:
            raise UserError(
                f"checkpoint.dir: {self._shown} cannot be used: {error}. Give a URL that fsspec knows, such as "
                "s3://bucket/run, or a folder that all machines see."
            ) from None
        self._root = str(root).rstrip("/")

    def steps(self) -> list[int]:
        """Those with a manifest, others are unfinished uploads; see `Place`."""
        return [step for step in steps_of(self._names(self._root)) if self.is_published(step)]

    def is_published(self, step: int) -> bool:
        """Whether there is a manifest; see `Place`."""
        with self._as_os_errors():
            self._files.invalidate_cache()
            return bool(self._files.exists(self._path(step, MANIFEST)))

    def where(self, step: int) -> str:
        """The URL; see `Place`."""
        return f"{self._shown}/{step_name(step)}"

    def write_part(self, key: SaveKey, name: str, write: WriteFile) -> None:
        """Write a temporary file and upload it, then its receipt; see `Place`."""
        with tempfile.TemporaryDirectory(prefix="sft-checkpoint-") as folder:
            path = Path(folder) / name
            receipt = {**write(path), **describe_file(path)}
            remote = self._path(key.step, f"{key}/{name}")
            with self._as_os_errors():
                self._files.makedirs(remote.rpartition("/")[0], exist_ok=True)
                self._files.put_file(str(path), remote)
                self._files.pipe_file(remote + RECEIPT, json.dumps(receipt).encode())

    def num_parts(self, key: SaveKey) -> int:
        """Receipt objects; see `Place`."""
        return len(self._receipt_names(key))

    def receipts(self, key: SaveKey) -> Receipts:
        """The receipt objects, by the file's name with the prefix of the save; see `Place`."""
        with self._as_os_errors():
            return {
                f"{key}/{name.removesuffix(RECEIPT)}": json.loads(
                    self._files.cat_file(self._path(key.step, f"{key}/{name}"))
                )
                for name in self._receipt_names(key)
            }

    def publish(self, key: SaveKey, manifest: Mapping[str, Any], receipts: Receipts) -> None:
        """Put the manifest; see `Place`."""
        if self.is_published(key.step):
            self.discard(key)
            return
        files = {name: {k: receipt[k] for k in ("num_bytes", "sha256")} for name, receipt in receipts.items()}
        content = json.dumps(sign_manifest({**manifest, "files": files}), indent=1).encode()
        with self._as_os_errors():
            self._files.pipe_file(self._path(key.step, MANIFEST), content)

    def discard(self, key: SaveKey) -> None:
        """Remove the save's uploads; see `Place`."""
        self._remove(self._path(key.step, str(key)))

    def discard_unfinished(self, attempt: int) -> None:
        """Remove other attempts' uploads that no manifest names; see `Place`."""
        for step in steps_of(self._names(self._root)):
            named: set[str] = set()
            if self.is_published(step):
                try:
                    with self.opened(step) as folder:
                        named = {PurePosixPath(name).parts[0] for name in read_manifest(folder)["files"]}
                except DamagedError:
                    # What it named is not known, so nothing of it is removed.
                    continue
            for name in self._names(self._path(step)):
                if name.startswith("attempt-") and not name.startswith(f"attempt-{attempt:04d}-") and name not in named:
                    self._remove(self._path(step, name))

    def delete(self, step: int) -> None:
        """Remove the manifest, then the rest; see `Place`."""
        with self._as_os_errors():
            self._files.rm_file(self._path(step, MANIFEST))
        self._remove(self._path(step))

    def set_aside(self, step: int) -> str:
        """Copy all of it under the other name, then remove it; see `Place`."""
        taken = set(self._names(self._root))
        free = next(name for name in damaged_names(step) if name not in taken)
        with self._as_os_errors():
            self._files.mv(self._path(step), f"{self._root}/{free}", recursive=True)
        return f"{self._shown}/{free}"

    def damaged(self) -> list[str]:
        """The copies; see `Place`."""
        return [f"{self._shown}/{name}" for name in self._names(self._root) if name.startswith("damaged-step-")]

    @contextmanager
    def opened(self, step: int) -> Iterator[Path]:
        """A temporary folder, gone at the end; see `Place`."""
        with tempfile.TemporaryDirectory(prefix="sft-checkpoint-") as folder:
            self.bring(step, [MANIFEST], Path(folder))
            yield Path(folder)

    def bring(self, step: int, names: Iterable[str], folder: Path) -> None:
        """Download; see `Place`."""
        for name in names:
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                with self._as_os_errors():
                    self._files.get_file(self._path(step, name), str(path))
            except FileNotFoundError:
                # A started download may have made it. That the file is missing is for the check to say.
                path.unlink(missing_ok=True)

    def _path(self, step: int, name: str = "") -> str:
        return f"{self._root}/{step_name(step)}/{name}".rstrip("/")

    def _receipt_names(self, key: SaveKey) -> list[str]:
        return [name for name in self._names(self._path(key.step, str(key))) if name.endswith(RECEIPT)]

    def _names(self, path: str) -> list[str]:
        with self._as_os_errors():
            self._files.invalidate_cache()
            try:
                found = self._files.ls(path, detail=False)
            except FileNotFoundError:
                return []
        return sorted(str(name).rstrip("/").rpartition("/")[2] for name in found)

    def _remove(self, path: str) -> None:
        with self._as_os_errors():
            self._files.invalidate_cache()
            if self._files.exists(path):
                self._files.rm(path, recursive=True)

    @contextmanager
    def _as_os_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError:
            raise
        except Exception as error:
            # Each package has errors of its own for a network that fails, without a base that could be named here.
            raise OSError(f"{self._shown}: {type(error).__name__}: {error}") from error
