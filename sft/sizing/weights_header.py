"""The tensors of a model's safetensors files, from the files' headers alone: no weight is read."""

import math
from pathlib import Path

from safetensors import SafetensorError, safe_open

from sft.errors import UserError


def read_tensor_sizes(folder: Path) -> dict[str, int]:
    """Elements of each tensor in the folder's safetensors files, by name; empty where there are none.

    Raises:
        UserError: a header cannot be read.
    """
    sizes: dict[str, int] = {}
    for file in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(file, framework="np") as tensors:
                for name in tensors.keys():  # noqa: SIM118  (it is no mapping)
                    sizes[name] = math.prod(tensors.get_slice(name).get_shape())
        except (OSError, SafetensorError) as error:
            raise UserError(f"model.path: the header of {file} cannot be read: {error}") from error
    return sizes
