"""The tensors of a model's safetensors files, from the files' headers alone: no weight is read."""

import math
from pathlib import Path

from sft.model.weight_files import finder, read_headers, weight_files


def read_tensor_sizes(folder: Path) -> dict[str, int]:
    """Elements of each tensor in the folder's safetensors files, by name; empty if there are none.

    Raises:
        UserError: a header cannot be read.
    """
    tensors = read_headers(weight_files(str(folder), finder(str(folder), download=False)))
    return {name: math.prod(tensor.shape) for name, tensor in tensors.items()}
