"""Each rank reads its own part of a model's weights from the files, and nothing else.

transformers builds and loads the model as ever. But it finds NaN in place of the tensors that need not be read whole:
on a resume those that go into trained parameters alone, which the checkpoint brings; and under ZeRO-3 those that it
would load unchanged, of which each rank then reads its own elements. Everything else (buffers, tensors that are
converted when they are loaded) goes transformers' own way: under ZeRO-3 the first rank reads it and hands it out.

Whether a tensor is loaded unchanged is not guessed: transformers' conversions are run on tensors without memory, and
one that comes out as the same object was only renamed.
"""

from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, modeling_utils
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.integrations.deepspeed import _apply_weight_conversions_to_state_dict

from sft.model.saved_tensors import saved_groups
from sft.model.weight_check import DTYPES, without_values
from sft.model.weight_files import StoredTensor
from sft.progress import Tell


@dataclass(frozen=True)
class Sources:
    """Where the tensors come from that transformers does not get to see."""

    own: Mapping[str, StoredTensor] = field(default_factory=dict)
    """By parameter: the tensor of the files of which each rank reads its part."""
    left_out: frozenset[str] = frozenset()
    """The names in the files of all tensors that transformers finds as NaN."""


def find_sources(
    skeleton: Any, stored: Mapping[str, StoredTensor], frozen: Set[str], awaits_state: bool, is_split: bool
) -> Sources:
    """Decide for each tensor of the files; the same on all ranks.

    Args:
        skeleton: the model on the meta device, compared with its files.
        stored: the tensors in the model's files.
        frozen: the names of the parameters that are not trained.
        awaits_state: whether a checkpoint brings the trained parameters.
        is_split: whether the model will be partitioned. If not, nothing is read in parts.
    """
    if not _loads_in_the_usual_way(skeleton):
        return Sources()
    shapes = {name: without_values(tensor) for name, tensor in stored.items()}
    parameters = dict(skeleton.named_parameters(remove_duplicate=False))
    unchanged = {
        target: name
        for target, name in _unchanged(skeleton, shapes).items()
        if target in parameters and parameters[target].shape == shapes[name].shape and stored[name].dtype in DTYPES
    }
    if not awaits_state:
        return Sources({target: stored[name] for target, name in unchanged.items()}, frozenset(unchanged.values()))
    fixed = {id(parameters[name]) for name in frozen}
    trained = {name for name, parameter in parameters.items() if id(parameter) not in fixed}
    own = {target: stored[name] for target, name in unchanged.items() if target not in trained and is_split}
    ties = skeleton.all_tied_weights_keys.items()
    # A parameter of a whole model that is stored twice is read: transformers ties both only if they are equal.
    stored_twice = set() if is_split else {name for pair in ties if unchanged.keys() >= {*pair} for name in pair}
    brought = {name for target, name in unchanged.items() if target in trained - stored_twice}
    for group in saved_groups(skeleton):
        if trained.issuperset(group.members):
            there = {name for name, shape in group.saved.items() if name in shapes and shapes[name].shape == shape}
            brought |= there - set(unchanged.values())
    return Sources(own, frozenset({*brought, *(unchanged[target] for target in own)}))


@contextmanager
def leave_out(names: Set[str]) -> Iterator[None]:
    """While this is open, transformers finds NaN in place of these tensors, and does not read them."""
    module: Any = modeling_utils
    theirs = module.safe_open
    if names:
        module.safe_open = lambda *given, **options: _Opened(theirs(*given, **options), names)
    try:
        yield
    finally:
        module.safe_open = theirs


class _Opened:
    """An open file of which some tensors are NaN."""

    def __init__(self, file: Any, left_out: Set[str]) -> None:
        self._file, self._left_out = file, left_out

    def __enter__(self) -> "_Opened":
        self._file.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._file.__exit__(*error)

    def keys(self) -> Sequence[str]:
        names: Sequence[str] = self._file.keys()
        return names

    def get_slice(self, name: str) -> Any:
        part = self._file.get_slice(name)
        return _NanSlice(part.get_shape(), part.get_dtype()) if name in self._left_out else part

    def get_tensor(self, name: str) -> Tensor:
        """A tensor that is left out has the memory of one number: ZeRO-3 copies it part by part."""
        if name not in self._left_out:
            tensor: Tensor = self._file.get_tensor(name)
            return tensor
        part = self._file.get_slice(name)
        return torch.full((), torch.nan, dtype=DTYPES[part.get_dtype()]).expand(part.get_shape())


class _NanSlice(NamedTuple):
    """What safetensors gives for a tensor that is not read yet."""

    shape: list[int]
    dtype: str

    def get_shape(self) -> list[int]:
        return self.shape

    def get_dtype(self) -> str:
        return self.dtype

    def __getitem__(self, index: Any) -> Any:
        # With memory of its own: it may become the parameter.
        return torch.full(self.shape, torch.nan, dtype=DTYPES[self.dtype])[index]


def read_own_parts(model: nn.Module, own: Mapping[str, StoredTensor], tell: Tell) -> None:
    """Fill this rank's part of each of these parameters; all ranks in the same order.

    Args:
        model: partitioned by DeepSpeed.
        own: the tensor of the files for each parameter.
        tell: called after each parameter.

    Raises:
        UserError: a file is shorter than its header says.
    """
    for name, tensor in own.items():
        parameter: Any = model.get_parameter(name)
        span, dtype = own_range(parameter), DTYPES[tensor.dtype]
        part, at = parameter.ds_tensor, 0
        for content in tensor.read_parts(span.start * dtype.itemsize, span.stop * dtype.itemsize):
            values = torch.frombuffer(content, dtype=dtype)
            part[at : at + len(values)].copy_(values)
            at += len(values)
        part[at:].zero_()
        # hpZ's copy is made anew when the parameter is first gathered.
        parameter.ds_secondary_tensor = None
        tell()


def own_range(parameter: Any) -> range:
    """The elements of a partitioned parameter that this rank holds, without the padding."""
    share = parameter.ds_tensor.numel()
    start = min(parameter.ds_zero_partition_rank * share, parameter.ds_numel)
    return range(start, min(start + share, parameter.ds_numel))


def _loads_in_the_usual_way(skeleton: Any) -> bool:
    """Whether neither the class nor a module of it changes what is read."""
    loads = next(of for of in type(skeleton).__mro__ if "from_pretrained" in vars(of))
    usual = nn.Module._load_from_state_dict
    return loads is PreTrainedModel and all(
        type(module)._load_from_state_dict is usual and not module._load_state_dict_pre_hooks
        for module in skeleton.modules()
    )


def _unchanged(skeleton: Any, shapes: Mapping[str, Tensor]) -> dict[str, str]:
    """The name in the files of each tensor of the model that is loaded as it is there."""
    conversions = get_model_conversion_mapping(skeleton)
    parts: Any = shapes
    if conversions:
        parts = _apply_weight_conversions_to_state_dict(skeleton, dict(shapes), conversions)
    given = {id(tensor): name for name, tensor in shapes.items()}
    known, prefix = set(skeleton.state_dict()), skeleton.base_model_prefix
    found: dict[str, str | None] = {}
    # transformers 5.23 gives one dictionary after the other, earlier versions a single one.
    for part in [parts] if isinstance(parts, Mapping) else parts:
        for name, tensor in part.items():
            target = f"{prefix}.{name}" if f"{prefix}.{name}" in known else name
            found[target] = given.get(id(tensor))
    return {target: name for target, name in found.items() if name is not None}
