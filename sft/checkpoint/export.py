"""Publishes the engine's model as a Hugging Face folder, without ever holding the whole model on one rank.

Parameters are gathered one at a time. The files of the model are dealt out to the ranks; the rank that owns a file
appends each of its tensors as it comes by, behind a header that was known from the shapes. So a rank holds one
parameter at most.

Format: safetensors (8 bytes header length, JSON header, raw tensors), with Hugging Face's index for several files.
"""

import copy
import json
import math
from collections.abc import Callable, Mapping
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

from sft.atomic_files import (
    is_published,
    leave_receipt,
    publish_folder,
    read_receipts,
    remove_receipts,
    write_json,
)
from sft.engine.engine import Engine

MAX_FILE_BYTES = 4 * 1024**3

_DTYPE_NAMES = {
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.float32: "F32",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.bool: "BOOL",
}


def export_model(
    engine: Engine,
    tokenizer: Any,
    final: Path,
    dtype: torch.dtype,
    attempt: int,
    tell: Callable[[], None] = lambda: None,
) -> None:
    """Write and publish the model at `final`; all ranks call this together.

    Args:
        engine: holds the parameters.
        tokenizer: saved beside the model, with the chat template it was trained with.
        final: the folder to publish.
        dtype: what the parameters are written in.
        attempt: keeps apart what a killed start of the job has left.
        tell: called before each parameter, for whoever watches whether there is progress.
    """
    # The first rank decides for all, who must gather together.
    is_done = engine.world.is_first and is_published(final)
    if engine.all_reduce_max(torch.tensor([float(is_done)])).item():
        return
    aside = final.with_name(f".{final.name}.attempt-{attempt:04d}.partial")
    aside.mkdir(parents=True, exist_ok=True)
    buffers = engine.persistent_buffers()
    specs = {name: TensorSpec(shape, dtype) for name, shape in engine.parameter_shapes().items()}
    specs |= {name: TensorSpec(tuple(values.shape), values.dtype) for name, values in buffers.items()}
    files = plan_files(specs, MAX_FILE_BYTES)
    owners = {name: i % engine.world.size for i, name in enumerate(files)}
    file_of = {parameter: name for name, parameters in files.items() for parameter in parameters}
    writers = {
        name: SafetensorsWriter(aside / name, {p: specs[p] for p in parameters})
        for name, parameters in files.items()
        if owners[name] == engine.world.rank
    }
    for parameter, values in chain(engine.gather_parameters(), buffers.items()):
        tell()
        name = file_of[parameter]
        if name in writers:
            writers[name].append(parameter, values)
    for name, writer in writers.items():
        writer.close()
        leave_receipt(aside / name)
    # The sum is known when every rank has come here: all files are written.
    engine.all_reduce_sum(torch.zeros(1))
    if engine.world.is_first:
        _write_folder(engine.hf_model, tokenizer, aside, files, dtype)
        manifest = {"kind": "model", "dtype": str(dtype).removeprefix("torch.")}
        hashes = {name: receipt["sha256"] for name, receipt in read_receipts(aside).items()}
        remove_receipts(aside)
        publish_folder(aside, final, manifest, hashes)
    engine.all_reduce_sum(torch.zeros(1))


class TensorSpec(NamedTuple):
    """What a file's header says of a tensor."""

    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def num_bytes(self) -> int:
        """The tensor's size in the file."""
        return self.dtype.itemsize * math.prod(self.shape)


def plan_files(specs: Mapping[str, TensorSpec], max_file_bytes: int) -> dict[str, list[str]]:
    """The model's files with the tensors of each, in order; a new one where the next would be too large."""
    groups: list[list[str]] = [[]]
    num_bytes = 0
    for name, spec in specs.items():
        if groups[-1] and num_bytes + spec.num_bytes > max_file_bytes:
            groups.append([])
            num_bytes = 0
        groups[-1].append(name)
        num_bytes += spec.num_bytes
    if len(groups) == 1:
        return {"model.safetensors": groups[0]}
    return {f"model-{i:05d}-of-{len(groups):05d}.safetensors": group for i, group in enumerate(groups, start=1)}


class SafetensorsWriter:
    """Writes a safetensors file whose tensors come one after the other."""

    def __init__(self, path: Path, specs: Mapping[str, TensorSpec]) -> None:
        """Write the header; the tensors must come in the order of `specs`."""
        header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
        end = 0
        for name, spec in specs.items():
            start, end = end, end + spec.num_bytes
            kind = _DTYPE_NAMES[spec.dtype]
            header[name] = {"dtype": kind, "shape": list(spec.shape), "data_offsets": [start, end]}
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)  # tensors start at a multiple of 8 bytes
        self._left = dict(specs)
        self._file = path.open("wb")
        self._file.write(len(text).to_bytes(8, "little") + text)

    def append(self, name: str, values: Tensor) -> None:
        """Write the next tensor."""
        expected = next(iter(self._left))
        assert name == expected, f"{name} comes where the header says {expected}"
        raw = values.detach().to("cpu", self._left.pop(name).dtype).contiguous().flatten().view(torch.uint8)
        self._file.write(raw.numpy().data)

    def close(self) -> None:
        """End the file."""
        self._file.close()
        assert not self._left, f"not written: {list(self._left)}"

    def __enter__(self) -> Self:
        """The writer itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        """End the file."""
        self._file.close() if error else self.close()


def _write_folder(model: Any, tokenizer: Any, aside: Path, files: Mapping[str, list[str]], dtype: torch.dtype) -> None:
    """Everything but the weights: config, generation config, tokenizer, and the index where there are several files."""
    config = copy.deepcopy(model.config)
    config.dtype = dtype
    config.architectures = [type(model).__name__]
    config.save_pretrained(aside)
    if model.generation_config is not None:
        model.generation_config.save_pretrained(aside)
    tokenizer.save_pretrained(aside)
    if len(files) > 1:
        total = sum((aside / name).stat().st_size for name in files)
        weight_map = {parameter: name for name, parameters in files.items() for parameter in parameters}
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        write_json(aside / "model.safetensors.index.json", index)
