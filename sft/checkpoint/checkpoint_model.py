"""The model that a checkpoint holds, without an engine: parameters are read from the ranks' files one at a time.

    checkpoint: float32 masters, in parts     +     the stage's first model: config, and what is not trained
                        └──────── CheckpointModel ────────┘ ──export_model──▶ Hugging Face folder

A parameter of the engine is its master in the dtype of the training. So the same function exports both, and to the bit
the same folder. No process group and no GPU is needed; the largest parameter is all that is in memory.

transformers loads some parameters in float32 whatever is asked for (a router, norms of some classes). ZeRO-3 holds all
of them in one dtype: there these have the values that this dtype can hold.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from sft.checkpoint.rank_file import CheckpointReader
from sft.config import ModelConfig
from sft.errors import UserError
from sft.model.loaded_dtypes import loaded_dtypes
from sft.model.loading import load_without_weights
from sft.model.saved_tensors import build_skeleton
from sft.optimizers import MASTER
from sft.progress import Progress
from sft.ranks.ranks import OneRank

_SHOWN = 4


class CheckpointModel:
    """An `Exportable`. Of the files, the masters alone are read."""

    def __init__(self, model: ModelConfig, path: str, reader: CheckpointReader, dtype: torch.dtype) -> None:
        """Compare the checkpoint with the model's class; no weight is read yet.

        Args:
            model: says whether code that comes with the model may run.
            path: the model that the stage started from.
            reader: an open checkpoint of the stage.
            dtype: that of the parameters.

        Raises:
            UserError: the model cannot be loaded, or the checkpoint belongs to another one.
        """
        self.ranks = OneRank(progress=Progress())
        self.hf_model = load_without_weights(model, path, dtype)
        self._reader = reader
        self._dtypes = loaded_dtypes(build_skeleton(self.hf_model, dtype), dtype)
        self._shapes = {name: p.shape for name, p in self.hf_model.named_parameters(remove_duplicate=False)}
        self._keys = _keys_of(self.hf_model, reader.sizes, path)

    def gather_parameters(self, names: Sequence[str]) -> Iterator[tuple[str, Tensor]]:
        """These whole parameters, which are trained, one at a time; see `Exportable`.

        Raises:
            UserError: a number is too large for the dtype.
            DamagedError: a file of the checkpoint cannot be read.
        """
        for name in names:
            yield name, self.parameter(name)

    def parameter(self, name: str) -> Tensor:
        """One of them; see `gather_parameters`."""
        shape, dtype = self._shapes[name], self._dtypes[name]
        master = self._reader.read(self._keys[name], 0, shape.numel()).view(shape)
        values = master.to(dtype)
        if dtype == torch.float16 and not bool(values.isfinite().all()):
            largest = float(master.abs().max())
            raise UserError(f"{name} holds {largest:g}, and the largest number of float16 is 65504. Use bfloat16.")
        return values


def _keys_of(model: Any, sizes: dict[str, int], path: str) -> dict[str, str]:
    """The checkpoint's name of each trained parameter, by any of its names in the model.

    Raises:
        UserError: the checkpoint does not hold exactly the parameters that are trained.
    """
    first = {id(parameter): name for name, parameter in model.named_parameters()}
    every = dict(model.named_parameters(remove_duplicate=False))
    masters = {key.rpartition("/")[0]: numel for key, numel in sizes.items() if key.endswith(f"/{MASTER}")}
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    unlike = sorted(
        [name for name in masters if name not in every or every[name].numel() != masters[name]]
        + [name for name in trained if name not in masters]
    )
    if unlike:
        more = f" and {len(unlike) - _SHOWN} more" if len(unlike) > _SHOWN else ""
        raise UserError(
            f"the checkpoint is not one of the model {path}: {', '.join(unlike[:_SHOWN])}{more} is only in one "
            "of them, or of another size. Bring back the model that the stage started from."
        )
    names = {name: name if name in masters else first[id(parameter)] for name, parameter in every.items()}
    return {name: f"{own}/{MASTER}" for name, own in names.items() if own in masters}
