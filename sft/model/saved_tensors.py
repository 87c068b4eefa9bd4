"""The names and shapes of a model's tensors in the files that transformers writes, found without any of their values.

transformers may hold several tensors of a file as one (the experts of a layer) or under another name, and reverts that
when it saves. Tensors that are reverted together are a group; a group can be written without any other tensor.

    tensors of the model ──tied ones once──▶ groups ──revert──▶ tensors of the files
"""

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.core_model_loading import WeightConverter, revert_weight_conversion
from transformers.modeling_utils import remove_tied_weights_from_state_dict

from sft.errors import UserError


@dataclass(frozen=True)
class Group:
    """Tensors of the model that become tensors of the files together."""

    members: tuple[str, ...]
    """By their names in the model."""
    saved: Mapping[str, tuple[int, ...]]
    """The shapes in the files, by their names there."""
    is_renamed: bool
    """A single tensor that is saved unchanged, under this name. The rules for renaming may depend on all names."""


def build_skeleton(model: Any, dtype: torch.dtype) -> Any:
    """The same class with the same config and the same conversions, in `dtype` and on the meta device."""
    with torch.device("meta"), torch.random.fork_rng(devices=[]):
        skeleton = type(model)._from_config(copy.deepcopy(model.config), dtype=dtype)
    conversions = getattr(model, "_weight_conversions", None)
    if conversions is not None:
        skeleton._weight_conversions = conversions
    return skeleton


def saved_groups(skeleton: Any) -> list[Group]:
    """What `save_pretrained` would write of the model, in groups, in the order of the model's tensors.

    Raises:
        UserError: the model's tensors cannot be split into groups.
    """
    state = _saved_state(skeleton)
    whole = _revert(skeleton, state)
    kept = {id(tensor): name for name, tensor in state.items()}
    # A tensor that comes out as the same object was only renamed, by rules that may depend on all names.
    renamed = {kept[id(tensor)]: name for name, tensor in whole.items() if id(tensor) in kept}
    groups = []
    for names in _converted_together(skeleton, state):
        if len(names) == 1 and names[0] in renamed:
            groups.append(Group(tuple(names), {renamed[names[0]]: tuple(state[names[0]].shape)}, True))
        else:
            parts = _revert(skeleton, {name: state[name] for name in names})
            groups.append(Group(tuple(names), {name: tuple(part.shape) for name, part in parts.items()}, False))
    found = {name: shape for group in groups for name, shape in group.saved.items()}
    if found != {name: tuple(tensor.shape) for name, tensor in whole.items()}:
        raise UserError(
            f"model: the tensors of {type(skeleton).__name__} cannot be saved one group at a time, which training on "
            "several workers needs. No setting changes this: use another model."
        )
    return groups


def saved_names(skeleton: Any, name: str) -> list[str]:
    """What `save_pretrained` calls a tensor of the model."""
    return list(_revert(skeleton, {name: skeleton.get_parameter(name)}))


def revert_group(skeleton: Any, group: Group, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of the files from those of the model; some may be views of others."""
    if group.is_renamed:
        (name,) = group.saved
        return {name: values[group.members[0]]}
    return _revert(skeleton, dict(values))


def _saved_state(skeleton: Any) -> dict[str, Tensor]:
    """Parameters and persistent buffers, tied ones once, without those that the class never saves."""
    state = dict(skeleton.state_dict(keep_vars=True))
    for name in skeleton._keys_to_ignore_on_save or ():
        state.pop(name, None)
    kept = remove_tied_weights_from_state_dict(dict(state), skeleton)
    return {name: tensor for name, tensor in state.items() if name in kept}


def _revert(skeleton: Any, state: dict[str, Tensor]) -> dict[str, Tensor]:
    with torch.no_grad():
        return dict(revert_weight_conversion(skeleton, state))


def _converted_together(skeleton: Any, names: Iterable[str]) -> list[list[str]]:
    conversions = getattr(skeleton, "_weight_conversions", None) or ()
    converters = [c.reverse_transform() for c in reversed(conversions) if isinstance(c, WeightConverter)]
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(_first_target(converters, name) or name, []).append(name)
    return list(groups.values())


def _first_target(converters: list[Any], name: str) -> str | None:
    """The name under which transformers collects tensors that belong together; None for a tensor by itself."""
    for converter in converters:
        target, pattern = converter.rename_source_key(name)
        if pattern is not None:
            return str(target)
    return None
