"""One rank's file of a checkpoint, and any part of the state read from the files of all ranks.

A file is safetensors: flat float32 tensors by `<parameter>/<kind>`. The manifest says which elements of the whole each
file holds, so a reader knows which files it needs before it opens any:

    sizes   key → elements of the whole
    spans   file → elements of the whole, as text → [first here, end here]

Tensors of one size are split alike, and a model has few sizes: the manifest stays small for any number of ranks.
`sft.checkpoint.formats` reads what older versions wrote.
"""

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from sft.atomic_files import DamagedError
from sft.checkpoint.formats import read_checkpoint_manifest, with_spans
from sft.checkpoint.safetensors_file import SafetensorsWriter, TensorSpec
from sft.engine.engine import Shard
from sft.progress import Tell


def rank_file_name(rank: int, world_size: int) -> str:
    """The name of a rank's file."""
    return f"rank-{rank:05d}-of-{world_size:05d}.safetensors"


def write_rank_file(path: Path, state: Mapping[str, Shard], tell: Tell = lambda: None) -> dict[str, Any]:
    """Write a rank's part of the state, and call `tell` after each piece; returns its `spans` for the receipt.

    Raises:
        OSError: the file cannot be written.
    """
    specs = {key: TensorSpec.of(tuple(shard.values.shape), shard.values.dtype) for key, shard in state.items()}
    try:
        with SafetensorsWriter(path, specs, tell) as file:
            for key, shard in state.items():
                file.write(key, shard.values)
    except OSError as error:
        # Errors of writing do not name the file.
        raise type(error)(error.errno, error.strerror, str(path)) from error
    spans: dict[str, list[int]] = {}
    for key, shard in state.items():
        span = [shard.start, shard.start + len(shard.values)]
        assert spans.setdefault(str(shard.numel), span) == span, f"{key} is split unlike others of its size"
    return {"spans": spans}


def files_to_read(
    manifest: Mapping[str, Any], rank: int, world_size: int, parts: Mapping[str, range] | None
) -> list[str]:
    """The files of a checkpoint that a rank reads, in order.

    Args:
        manifest: the checkpoint's.
        rank: of the reader.
        world_size: of the reader.
        parts: the elements that the rank reads of each key. If these or the files' elements are not known, the rank
            reads its own file if the checkpoint has the same number of ranks, else all files.
    """
    if parts is None or "spans" not in manifest:
        own = [name for name in manifest["files"] if Path(name).name == rank_file_name(rank, world_size)]
        return own or sorted(manifest["files"])
    wanted = {(str(manifest["sizes"][key]), part) for key, part in parts.items() if key in manifest["sizes"]}
    return sorted(
        name
        for name, spans in manifest["spans"].items()
        if any(max(spans[size][0], part.start) < min(spans[size][1], part.stop) for size, part in wanted)
    )


class CheckpointReader:
    """Reads any part of any state tensor of a published checkpoint. Use it as a context manager."""

    def __init__(self, path: Path, held: ExitStack | None = None, manifest: dict[str, Any] | None = None) -> None:
        """Files are mapped when something is read from them.

        Args:
            path: the checkpoint's folder.
            held: what to close after the files, such as a temporary folder with them.
            manifest: the checkpoint's, with the spans of the files that are read; it is read by default.

        Raises:
            FileNotFoundError: there is no checkpoint.
            DamagedError: its manifest is damaged.
            OtherVersionError: it is in a format that is not read here.
        """
        self._path = path
        if manifest is None:
            manifest = read_checkpoint_manifest(path)
            manifest = with_spans(manifest, path, manifest["files"])
        self.manifest = manifest
        self._held = held or ExitStack()
        self._files: dict[str, Any] = {}
        self._sizes: dict[str, int] = self.manifest["sizes"]
        self._spans: dict[str, dict[str, list[int]]] = self.manifest["spans"]

    def __enter__(self) -> Self:
        """The reader itself."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Close the files."""
        self.close()

    def close(self) -> None:
        """Close the files."""
        self._held.close()

    @property
    def step(self) -> int:
        """The steps that were done when it was saved."""
        return int(self.manifest["step"])

    @property
    def sizes(self) -> dict[str, int]:
        """The elements of each flat state tensor, by its key."""
        return self._sizes

    def read(self, key: str, start: int, stop: int) -> Tensor:
        """Elements `start` to `stop` of a flat state tensor, put together from the parts that hold them: float32.

        Raises:
            KeyError: the checkpoint has no such tensor.
            ValueError: it holds fewer elements than are asked for.
            DamagedError: a file cannot be read as what was written.
        """
        if key not in self._sizes:
            raise KeyError(f"the checkpoint has no {key}: it belongs to another model")
        values = torch.empty(stop - start, dtype=torch.float32)
        filled = 0
        for name, spans in self._spans.items():
            piece_start, piece_stop = spans[str(self._sizes[key])]
            first, last = max(start, piece_start), min(stop, piece_stop)
            if first < last:
                values[first - start : last - start] = self._slice(name, key, first - piece_start, last - piece_start)
                filled += last - first
        if filled != stop - start:
            raise ValueError(f"the checkpoint holds {filled} of elements {start} to {stop} of {key}")
        return values

    def _slice(self, name: str, key: str, first: int, last: int) -> Tensor:
        try:
            if name not in self._files:
                self._files[name] = self._held.enter_context(safe_open(self._path / name, framework="pt"))
            piece: Tensor = self._files[name].get_slice(key)[first:last]
        except (SafetensorError, OSError) as error:
            raise DamagedError(self._path / name, str(error)) from error
        if len(piece) != last - first:
            raise DamagedError(self._path / name, f"{key} ends at element {first + len(piece)}, before {last}")
        return piece
