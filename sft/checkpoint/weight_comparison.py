"""Whether the weights of an exported folder are those of the model, to the bit; tensor by tensor, in words."""

from pathlib import Path

import numpy as np
import torch

from sft.checkpoint.export import Exportable, exported_tensors, find_sources
from sft.checkpoint.safetensors_file import TensorSpec, raw_bytes
from sft.model.saved_tensors import build_skeleton
from sft.model.weight_files import StoredTensor, finder, read_headers, weight_files
from sft.progress import Tell

_SHOWN = 4


def differing_tensors(model: Exportable, folder: Path, dtype: torch.dtype, tell: Tell = lambda: None) -> list[str]:
    """In what the tensors of the folder differ from those that `export_model` would write; empty: in nothing.

    One tensor of each is in memory at a time.

    Raises:
        UserError: the folder's files cannot be read.
    """
    stored = read_headers(weight_files(str(folder), finder(str(folder), download=False)))
    skeleton = build_skeleton(model.hf_model, dtype)
    sources = find_sources(model, skeleton, dtype)
    specs = {name: spec for source in sources for name, spec in source.specs.items()}
    found = [f"{name} is missing" for name in specs if name not in stored]
    found += [f"{name} is additional" for name in stored if name not in specs]
    for name, values in exported_tensors(model, skeleton, sources, set(specs), tell):
        if name in stored and (
            difference := _difference(stored[name], specs[name], raw_bytes(name, values, specs[name]))
        ):
            found.append(f"{name} {difference}")
    return found


def _difference(stored: StoredTensor, spec: TensorSpec, expected: memoryview) -> str | None:
    if (stored.dtype, stored.shape) != (spec.dtype, spec.shape):
        return f"is {stored.dtype} {list(stored.shape)}, not {spec.dtype} {list(spec.shape)}"
    content = stored.read()
    if content == expected:
        return None
    num_rows = spec.shape[0] if len(spec.shape) > 1 else 1
    found, right = (np.frombuffer(raw, dtype=np.uint8).reshape(num_rows, -1) for raw in (content, expected))
    rows = (found != right).any(axis=1).nonzero()[0].tolist()
    if num_rows == 1:
        return "has other values"
    more = f" and {len(rows) - _SHOWN:,} more" if len(rows) > _SHOWN else ""
    return f"has other values in {len(rows):,} of {num_rows:,} rows: {', '.join(map(str, rows[:_SHOWN]))}{more}"
