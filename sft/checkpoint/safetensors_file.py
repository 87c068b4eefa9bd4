"""Writes safetensors files whose tensors come one by one, in any order, so that only one tensor is in memory.

Format: 8 bytes header length, JSON header, raw tensors.
"""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import torch
from torch import Tensor

from sft.progress import CHUNK_BYTES, Tell

_SYNC_EVERY_BYTES = 256 * 1024**2
"""Sync after this many bytes: each sync is short, so that a slow disk still shows progress."""

_DTYPE_NAMES = {
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.float32: "F32",
    torch.float64: "F64",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
_DTYPES = {name: dtype for dtype, name in _DTYPE_NAMES.items()}


class TensorSpec(NamedTuple):
    """What a file's header says of a tensor."""

    shape: tuple[int, ...]
    dtype: str
    """By its name in safetensors."""
    num_bytes: int

    @classmethod
    def of(cls, shape: tuple[int, ...], dtype: torch.dtype) -> "TensorSpec":
        """The spec of a torch tensor."""
        return cls(shape, _DTYPE_NAMES[dtype], dtype.itemsize * math.prod(shape))


class SafetensorsWriter:
    """Writes a safetensors file whose tensors come in any order, each once."""

    def __init__(self, path: Path, specs: Mapping[str, TensorSpec], tell: Tell = lambda: None) -> None:
        """Write the header; `tell` is called after each chunk."""
        header: dict[str, object] = {"__metadata__": {"format": "pt"}}
        end = 0
        starts = {}
        for name, spec in specs.items():
            starts[name], end = end, end + spec.num_bytes
            header[name] = {"dtype": spec.dtype, "shape": list(spec.shape), "data_offsets": [starts[name], end]}
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)  # tensors start at a multiple of 8 bytes
        first = 8 + len(text)
        self._left = {name: (first + starts[name], spec) for name, spec in specs.items()}
        self._tell = tell
        self._num_unsynced = 0
        self._file = path.open("wb")
        self._file.write(len(text).to_bytes(8, "little") + text)

    def write(self, name: str, values: Tensor | bytes) -> None:
        """Write a tensor, in the dtype of its spec, or its raw bytes."""
        start, spec = self._left.pop(name)
        raw = raw_bytes(name, values, spec)
        self._file.seek(start)
        for first in range(0, raw.nbytes, CHUNK_BYTES):
            self._num_unsynced += self._file.write(raw[first : first + CHUNK_BYTES])
            if self._num_unsynced >= _SYNC_EVERY_BYTES:
                self._file.flush()
                os.fdatasync(self._file.fileno())
                self._num_unsynced = 0
            self._tell()

    def close(self) -> None:
        """Close the file. All tensors must have been written."""
        self._file.close()
        assert not self._left, f"not written: {list(self._left)}"

    def __enter__(self) -> Self:
        """The writer itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        """End the file."""
        self._file.close() if error else self.close()


def raw_bytes(name: str, values: Tensor | bytes, spec: TensorSpec) -> memoryview:
    """What a file holds of a tensor, in the dtype of its spec."""
    if isinstance(values, Tensor):
        assert tuple(values.shape) == spec.shape, f"{name}: {tuple(values.shape)}, and the header says {spec.shape}"
        cast = values.detach().to("cpu", _DTYPES[spec.dtype])
        raw = cast.contiguous().flatten().view(torch.uint8).numpy().data
    else:
        raw = memoryview(values)
    assert raw.nbytes == spec.num_bytes, f"{name}: {raw.nbytes} bytes"
    return raw
