"""Writes and reads checkpoints: one safetensors file a rank with its part of every flat state tensor.

Each rank writes its file aside and leaves a receipt (size and hash); the first rank publishes the folder when all
receipts are there. No collective is involved, so a thread can do it while the ranks train on. A reader maps
the files and takes the elements it wants, so any world size reads what any other has written, its own part only.
"""

import json
import shutil
import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from sft.atomic_files import (
    MANIFEST,
    count_receipts,
    is_published,
    leave_receipt,
    publish_folder,
    read_manifest,
    take_receipts,
)
from sft.checkpoint.retention import checkpoints_to_delete
from sft.engine.engine import Shard
from sft.world import World

FORMAT_VERSION = 1

_RECEIPT_TIMEOUT_SECONDS = 1800.0
_POLL_SECONDS = 0.05


class CheckpointStore:
    """The checkpoints of one stage, as one rank sees them."""

    def __init__(self, folder: Path, world: World, attempt: int, keep_last: int, asynchronous: bool) -> None:
        """`attempt` keeps the unpublished files of this start of the job apart from those of a killed one."""
        self._folder = folder
        self._world = world
        self._partial_suffix = f".attempt-{attempt:04d}.partial"
        self._keep_last = keep_last
        self._thread = ThreadPoolExecutor(1, "checkpoint") if asynchronous else None
        self._pending: Future[None] | None = None
        if world.is_first:
            for partial in folder.glob(".step-*.partial"):
                if not partial.name.endswith(self._partial_suffix):
                    shutil.rmtree(partial, ignore_errors=True)

    def save(self, step: int, state: Mapping[str, Shard], manifest: Mapping[str, Any]) -> float:
        """Save the state after `step` updates; returns the seconds that training waited.

        The wait is the copy of the state, and the end of the save before where that is still under way.
        """
        started = time.perf_counter()
        self.wait()
        copied = {key: Shard(s.numel, s.start, s.values.detach().to("cpu", copy=True)) for key, s in state.items()}
        if self._thread is None:
            self._write(step, copied, manifest)
        else:
            self._pending = self._thread.submit(self._write, step, copied, manifest)
        return time.perf_counter() - started

    def wait(self) -> None:
        """Return when this rank's save is over (on the first rank: published); raises what went wrong with it."""
        if self._pending is not None:
            pending, self._pending = self._pending, None
            pending.result()

    def _write(self, step: int, state: Mapping[str, Shard], manifest: Mapping[str, Any]) -> None:
        final = checkpoint_path(self._folder, step)
        if is_published(final):
            return
        aside = self._folder / f".{final.name}{self._partial_suffix}"
        aside.mkdir(parents=True, exist_ok=True)
        path = aside / f"rank-{self._world.rank:05d}-of-{self._world.size:05d}.safetensors"
        spans = {key: [shard.numel, shard.start] for key, shard in state.items()}
        values = {key: shard.values for key, shard in state.items()}
        save_file(values, path, metadata={"spans": json.dumps(spans)})
        leave_receipt(path)
        if self._world.is_first:
            self._wait_for_all_ranks(aside)
            full = {"kind": "checkpoint", "format": FORMAT_VERSION, "step": step, "world_size": self._world.size}
            publish_folder(aside, final, {**full, **manifest}, take_receipts(aside))
            self._delete_old()

    def _wait_for_all_ranks(self, aside: Path) -> None:
        deadline = time.monotonic() + _RECEIPT_TIMEOUT_SECONDS
        while (num_written := count_receipts(aside)) < self._world.size:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{aside}: only {num_written} of {self._world.size} ranks have written their part")
            time.sleep(_POLL_SECONDS)

    def _delete_old(self) -> None:
        for step in checkpoints_to_delete(published_steps(self._folder), self._keep_last):
            path = checkpoint_path(self._folder, step)
            # Without its manifest it is absent; then its files may go in any order.
            (path / MANIFEST).unlink()
            shutil.rmtree(path)


def checkpoint_path(folder: Path, step: int) -> Path:
    """The folder of the checkpoint after `step` updates."""
    return folder / f"step-{step:08d}"


def published_steps(folder: Path) -> list[int]:
    """The steps of all published checkpoints, in order."""
    return sorted(int(path.name.removeprefix("step-")) for path in folder.glob("step-*") if is_published(path))


class CheckpointReader:
    """Reads any part of any state tensor of a published checkpoint. Use it as a context manager."""

    def __init__(self, path: Path) -> None:
        """Map the files of all ranks that wrote it."""
        self.manifest = read_manifest(path)
        self._open_files = ExitStack()
        self._pieces: dict[str, list[tuple[int, Any]]] = {}
        self._numel: dict[str, int] = {}
        for name in sorted(self.manifest["files"]):
            file = self._open_files.enter_context(safe_open(path / name, framework="pt"))
            for key, (numel, start) in json.loads(file.metadata()["spans"]).items():
                self._pieces.setdefault(key, []).append((start, file.get_slice(key)))
                self._numel[key] = numel

    def __enter__(self) -> "CheckpointReader":
        """The reader itself."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Close the files."""
        self._open_files.close()

    def read(self, key: str, start: int, stop: int) -> Tensor:
        """Elements `start` to `stop` of a flat state tensor, put together from the parts that hold them."""
        if key not in self._pieces:
            raise KeyError(f"the checkpoint has no {key}: it is of another model")
        values = torch.empty(stop - start, dtype=torch.float32)
        filled = 0
        for piece_start, piece in self._pieces[key]:
            first, last = max(start, piece_start), min(stop, piece_start + piece.get_shape()[0])
            if first < last:
                values[first - start : last - start] = piece[first - piece_start : last - piece_start]
                filled += last - first
        if filled != stop - start:
            raise ValueError(f"the checkpoint holds {filled} of elements {start} to {stop} of {key}")
        return values
