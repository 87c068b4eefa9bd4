"""Compares a model's files with its class before a weight is read: missing, additional and wrongly shaped tensors.

transformers itself compares them, with tensors that have a shape and no content. So its own rules apply for renaming
and fusing weights, for tied weights, and for weights it declares ignorable. It would fill missing weights at random.
"""

from collections.abc import Iterable, Mapping, Set
from typing import Any

import torch
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import convert_and_load_state_dict_in_model
from transformers.modeling_utils import LoadStateDictConfig
from transformers.utils import logging

from sft.errors import UserError
from sft.model.saved_tensors import saved_groups, saved_names
from sft.model.weight_files import StoredTensor

DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
"""Of learned numbers, by safetensors' name."""
_INDICES = ("I64", "I32", "I16", "BOOL")
"""Not learned numbers: tables of positions, of experts and the like."""


def check_weights(path: str, skeleton: Any, stored: Mapping[str, StoredTensor]) -> None:
    """Load the stored tensors' shapes into a model without memory.

    `skeleton` keeps in `_weight_conversions` how its names differ from those in its files, as transformers leaves it in
    a model that it has loaded.

    Args:
        path: the model, as the user names it.
        skeleton: the model on the meta device.
        stored: the tensors in its files.

    Raises:
        UserError: the files do not belong to the model; the message names all tensors that differ.
    """
    shapes = {name: without_values(tensor) for name, tensor in stored.items()}
    mapping: Any = get_model_conversion_mapping(skeleton)
    is_shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        found, _ = convert_and_load_state_dict_in_model(
            skeleton,
            shapes,
            LoadStateDictConfig(device_map={"": "meta"}, dtype=torch.float32, weight_mapping=mapping),
        )
    finally:
        if is_shown:
            logging.enable_progress_bar()
    unequal = _unequal_ties(skeleton, found.missing_keys, stored)
    skeleton.mark_tied_weights_as_initialized(found)
    skeleton.tie_weights(missing_keys=found.missing_keys, recompute_mapping=False)
    skeleton._adjust_missing_and_unexpected_keys(found)
    broken = set(found.conversion_errors)
    wrong = {name: (tuple(there), tuple(needed)) for name, there, needed in found.mismatched_keys}
    missing = sorted(found.missing_keys - broken - set(wrong))
    if broken:
        # For tensors merged from several: by the names in the files.
        parts = [name for group in saved_groups(skeleton) if broken & set(group.members) for name in group.saved]
        missing += sorted(set(parts) - set(stored))
    problems = [
        *_lines("missing", missing),
        *_lines("not of this model", sorted(found.unexpected_keys)),
        *_lines("of another shape", [f"{n} {there}, needed {needed}" for n, (there, needed) in sorted(wrong.items())]),
        *_lines("merged from several that do not fit together", sorted(broken)),
        *_lines(
            "tied by tie_word_embeddings (set it to false if both are meant), but stored as two that differ", unequal
        ),
        *_lines("quantized", [f"{name} {stored[name].dtype}" for name in _quantized(skeleton, stored)]),
    ]
    if problems:
        raise UserError(
            f"model: the weights of {path} are not those of a {type(skeleton).__name__}, which its config.json asks "
            "for. Tensors that are\n" + "\n".join(problems) + "\n"
            "Nothing is filled in or left out. Needed: the whole model with its own config.json, such as a fresh "
            "download; a fine-tuned part (an adapter, a classifier) has to be merged or left out first."
        )


def _quantized(skeleton: Any, stored: Mapping[str, StoredTensor]) -> list[str]:
    learned = {name for name, _ in skeleton.named_parameters()}
    return sorted(
        name
        for name, tensor in stored.items()
        if tensor.dtype not in DTYPES and (name in learned or tensor.dtype not in _INDICES)
    )


def _unequal_ties(skeleton: Any, missing: Set[str], stored: Mapping[str, StoredTensor]) -> list[str]:
    """Tensors that the class ties, but the files store as two that differ, or that are not found there by name.

    transformers would keep both, and train two. If the parameters are split over ranks, it would keep one.
    """
    unequal = []
    for pair in skeleton.all_tied_weights_keys.items():
        if missing.isdisjoint(pair):
            one, other = (_find_stored(skeleton, name, stored) for name in pair)
            if one is None or other is None or not _is_same(one, other):
                unequal.append(" and ".join(pair))
    return unequal


def _find_stored(skeleton: Any, name: str, stored: Mapping[str, StoredTensor]) -> StoredTensor | None:
    # Names may have the prefix of the base model or not.
    (saved,) = saved_names(skeleton, name)
    return next((t for n, t in stored.items() if f".{saved}".endswith(f".{n}") or f".{n}".endswith(f".{saved}")), None)


def _is_same(one: StoredTensor, other: StoredTensor) -> bool:
    if (one.dtype, one.shape) != (other.dtype, other.shape):
        return False
    return all(first == second for first, second in zip(one.read_parts(), other.read_parts(), strict=True))


def without_values(tensor: StoredTensor) -> torch.Tensor:
    """A tensor of its shape, on the meta device; in float32 if it does not hold learned numbers."""
    return torch.empty(tensor.shape, dtype=DTYPES.get(tensor.dtype, torch.float32), device="meta")


def _lines(kind: str, names: Iterable[str]) -> list[str]:
    given = list(names)
    shown = [f"    {name}" for name in given[:8]]
    if len(given) > 8:
        shown.append(f"    and {len(given) - 8:,} more")
    return [f"  {kind}:", *shown] if given else []
