"""The dtype of each tensor of a model that transformers loads in one dtype: its class keeps some of them in float32.

They are routers of experts and what corrects them, sinks, decays of states: small, and computed in float32 by who made
the model. A whole model has them so from transformers. Into shards it loads in another way: DeepSpeed makes every new
tensor in the dtype of the training, and the files' values are copied into what is there. So there each tensor gets its
dtype between the two, before a value is read.
"""

import re
from collections.abc import Iterator, Mapping, Set
from contextlib import contextmanager
from itertools import chain
from typing import Any

import torch
from torch import Tensor
from transformers import modeling_utils

from sft.errors import UserError

_SHOWN = 4


def loaded_dtypes(skeleton: Any, dtype: torch.dtype) -> dict[str, torch.dtype]:
    """The dtype of each parameter and buffer of the model when transformers loads it whole in `dtype`.

    Left out are buffers that no file holds and that have this dtype here: a class may make them anew as it loads.

    Args:
        skeleton: the model on the meta device, made in `dtype`.
        dtype: that of the loading.
    """
    plan = skeleton._get_dtype_plan(dtype)
    kept = re.compile("|".join(f"(?:{pattern.replace('*', '.*')})" for pattern in plan) or r"(?!)")
    of_files = {name: torch.float32 if kept.search(name) else t.dtype for name, t in skeleton.state_dict().items()}
    return {**{name: buffer.dtype for name, buffer in skeleton.named_buffers() if buffer.dtype != dtype}, **of_files}


@contextmanager
def loading_into_shards(dtypes: Mapping[str, torch.dtype]) -> Iterator[set[str]]:
    """While this is open, each tensor of a partitioned model has its dtype before transformers reads its values.

    Gives the names of the tensors that transformers then found no values for.
    """
    module: Any = modeling_utils
    theirs = module._load_state_dict_into_zero3_model
    unread: set[str] = set()

    def load(model: Any, *given: Any, **options: Any) -> Any:
        for name, tensor in _tensors(model):
            _give_dtype(tensor, dtypes.get(name, tensor.dtype))
        errors, missing = theirs(model, *given, **options)
        left_to_class = re.compile("|".join(model._keys_to_ignore_on_load_missing or ()) or r"(?!)")
        unread.update(name for name in missing - set(model.all_tied_weights_keys) if not left_to_class.search(name))
        return errors, missing

    module._load_state_dict_into_zero3_model = load
    try:
        yield unread
    finally:
        module._load_state_dict_into_zero3_model = theirs


def check_shards(path: str, model: Any, dtypes: Mapping[str, torch.dtype], unread: Set[str]) -> None:
    """Refuse a partitioned model that is not the whole one, whose files were compared with its class before.

    Args:
        path: the model, as the user names it.
        model: as transformers loaded it into shards.
        dtypes: those of the whole model.
        unread: see `loading_into_shards`.

    Raises:
        UserError: values were not read, or have another dtype; the message names the tensors.
    """
    # A class may have made anew what no file holds.
    of_files = dtypes.keys() & model.state_dict().keys()
    wrong = [f"{name} (its values are not read)" for name in sorted(unread)] + [
        f"{name} ({tensor.dtype}, not {dtypes[name]})"
        for name, tensor in chain(model.named_parameters(), model.named_buffers())
        if name in of_files and tensor.dtype != dtypes[name]
    ]
    if wrong:
        more = f" and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
        raise UserError(
            f"model: transformers cannot load {path} in parts, for several workers, as it loads it whole. "
            f"What differs: {', '.join(wrong[:_SHOWN])}{more}. "
            "Train on one worker (cluster.workers: 1, train.engine: plain), or use another model.",
            is_everywhere=True,
        )


def _give_dtype(tensor: Any, dtype: torch.dtype) -> None:
    if tensor.dtype == dtype:
        return
    tensor.data = tensor.data.to(dtype)
    part = getattr(tensor, "ds_tensor", None)
    if part is not None:
        part.data = part.data.to(dtype)
        # hpZ's copy is made anew when the parameter is first gathered.
        tensor.ds_secondary_tensor = None


def _tensors(model: Any) -> Iterator[tuple[str, Tensor]]:
    """All parameters and buffers, by all of their names."""
    return chain(model.named_parameters(remove_duplicate=False), model.named_buffers(remove_duplicate=False))
