"""The safetensors files of a model, and what their headers say about each tensor. Reads no weights, needs no torch.

Format: 8 bytes with the header's length, the header as JSON, then the tensors' raw bytes.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from huggingface_hub import hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import EntryNotFoundError
from huggingface_hub.utils.tqdm import tqdm
from safetensors import SafetensorError, safe_open

from sft.errors import UserError
from sft.progress import Tell

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
"""The file names by which transformers finds a model's weights; a single file takes precedence over an index."""

_MAX_HEADER_BYTES = 100_000_000
"""The limit of the safetensors format."""

_PART_BYTES = 1 << 24
_SAMPLES, _SAMPLE_BYTES = 17, 4096
"""Of each file: its beginning, its end, and between them."""


class StoredTensor(NamedTuple):
    """A tensor in a file."""

    file: Path
    dtype: str
    """By safetensors' name, such as `BF16`."""
    shape: tuple[int, ...]
    start: int
    """The offset of its first byte from the beginning of the file."""
    num_bytes: int

    def read(self) -> bytes:
        """Its raw bytes."""
        with self.file.open("rb") as file:
            file.seek(self.start)
            return file.read(self.num_bytes)

    def read_parts(self, first: int = 0, last: int | None = None) -> Iterator[bytearray]:
        """Its raw bytes in parts of 16 MiB, to take little memory; the last part may be shorter.

        With `first` and `last`, those from the first up to the last alone.

        Raises:
            UserError: the file ends before.
        """
        last = self.num_bytes if last is None else last
        with self.file.open("rb") as file:
            file.seek(self.start + first)
            for at in range(first, last, _PART_BYTES):
                part = bytearray(min(_PART_BYTES, last - at))
                if (found := file.readinto(part)) < len(part):
                    needed = self.start + at + len(part)
                    raise _damaged(self.file, f"it has {needed - len(part) + found:,} bytes, and {needed:,} are needed")
                yield part


Find = Callable[[str], Path | None]
"""A file of the model by its name, on this machine; None where there is none."""


def finder(path: str, download: bool, tell: Tell = lambda: None) -> Find:
    """Finds the files of the model at `path`: a folder, or the id of a model on the Hub.

    Args:
        path: the folder or id.
        download: whether to fetch a file of the Hub that is not on this machine.
        tell: called after each fetched part of a file.
    """

    class Told(tqdm):
        def update(self, n: float | None = 1) -> bool | None:
            tell()
            shown: bool | None = super().update(n)
            return shown

    folder = Path(path).expanduser()

    def in_folder(name: str) -> Path | None:
        return folder / name if (folder / name).is_file() else None

    def on_hub(name: str) -> Path | None:
        if not download:
            cached = try_to_load_from_cache(path, name)
            return Path(cached) if isinstance(cached, str) else None
        try:
            return Path(hf_hub_download(path, name, tqdm_class=Told))
        except EntryNotFoundError:  # also where the Hub cannot be reached and the cache has none
            return None

    return in_folder if folder.is_dir() else on_hub


def weight_files(path: str, find: Find) -> list[Path]:
    """The files that transformers reads the weights from; empty where there are none.

    Raises:
        UserError: the index cannot be read, or names a file that is missing.
    """
    if whole := find(WEIGHTS):
        return [whole]
    if not (index := find(INDEX)):
        return []
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        if not all(isinstance(name, str) for name in names):
            raise TypeError(f"{names[0]!r} is not the name of a file")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"model: {index} is not an index of weights: {error}") from error
    found = {name: find(name) for name in names}
    if missing := [name for name, file in found.items() if file is None]:
        raise UserError(
            f"model: {path} lacks {_listed(missing)}, which its {INDEX} names. The download is not complete: "
            "fetch the model again."
        )
    return [file for file in found.values() if file is not None]


def read_headers(files: Iterable[Path]) -> dict[str, StoredTensor]:
    """Every tensor of the files, by name.

    Raises:
        UserError: a file is not safetensors, is cut off, or holds a tensor that another file holds too.
    """
    tensors: dict[str, StoredTensor] = {}
    for file in files:
        found = _read_header(file)
        if twice := sorted(found.keys() & tensors.keys()):
            raise UserError(
                f"model: {_listed(twice)} is in {tensors[twice[0]].file.name} and in {file.name} of {file.parent}: "
                "it is unclear which one counts. Fetch the model again, or remove one of the files."
            )
        tensors |= found
    return tensors


def content_sample(files: Iterable[Path]) -> str:
    """A hash of names, sizes and some of the bytes all over the files: files with other weights have another one.

    Raises:
        UserError: a file cannot be read.
    """
    digest = hashlib.sha256()
    for file in files:
        try:
            size = file.stat().st_size
            digest.update(f"{file.name} {size}\n".encode())
            with file.open("rb") as opened:
                for i in range(_SAMPLES):
                    opened.seek(max(0, size - _SAMPLE_BYTES) * i // (_SAMPLES - 1))
                    digest.update(opened.read(_SAMPLE_BYTES))
        except OSError as error:
            raise UserError(f"model: {file} cannot be read: {error.strerror}") from error
    return digest.hexdigest()


def _read_header(file: Path) -> dict[str, StoredTensor]:
    try:
        size = file.stat().st_size
        with file.open("rb") as opened:
            first = opened.read(8)
            length = int.from_bytes(first, "little")
            if first == b"version ":
                raise UserError(
                    f"model: {file} is a pointer of Git LFS, not the weights themselves ({size} bytes). "
                    "Fetch them: `git lfs pull` in that folder, or `hf download` of the model."
                )
            if length > min(size, _MAX_HEADER_BYTES):
                raise _damaged(file, f"it has {size:,} bytes, and its header alone would have {length:,}")
            header = json.loads(opened.read(length))
        header.pop("__metadata__", None)
        tensors = {name: _stored(file, 8 + length, entry) for name, entry in sorted(header.items())}
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"model: {file} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _damaged(file, f"its header cannot be read: {error}") from error
    end = max((tensor.start + tensor.num_bytes for tensor in tensors.values()), default=8 + length)
    if size < end:
        raise _damaged(file, f"it has {size:,} bytes, and its header describes {end:,}")
    try:
        # The library checks that shapes, dtypes and offsets fit together, and that the file holds nothing else.
        with safe_open(file, framework="np"):
            return tensors
    except SafetensorError as error:
        raise _damaged(file, str(error)) from error


def _stored(file: Path, first: int, entry: dict[str, list[int]]) -> StoredTensor:
    start, end = entry["data_offsets"]
    return StoredTensor(file, str(entry["dtype"]), tuple(entry["shape"]), first + start, end - start)


def _damaged(file: Path, reason: str) -> UserError:
    return UserError(f"model: {file} is cut off or damaged: {reason}. Fetch it again.")


def _listed(names: list[str]) -> str:
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
