"""Tensors that say they lie on another device and compute with real numbers: what a GPU would refuse fails here too.

A tensor of the pretended device holds one of the CPU. An operation on it and on a tensor of the CPU fails, as on a GPU,
unless that is a single number or an index. What a GPU would have to wait for (its numbers on the host) is counted. The
device is called `meta`: a build of torch for the CPU lets no tensor say `cuda`.
"""

from collections import Counter
from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_flatten, tree_map

DEVICE = torch.device("meta")

_WAITS = {"_local_scalar_dense", "nonzero", "masked_select", "unique_dim", "_unique2", "equal"}
"""Operations whose result the host needs, or whose shape."""
_MOVES = {"_to_copy", "copy_"}
_TAKES_INDICES = {"index", "index_put", "index_put_", "_unsafe_index", "_index_put_impl_"}


class OnDevice(Tensor):
    """A tensor of the pretended device."""

    held: Tensor

    @staticmethod
    def __new__(cls, real: Tensor) -> "OnDevice":
        tensor: Any = Tensor  # which has this method without types
        made: OnDevice = tensor._make_wrapper_subclass(
            cls,
            real.size(),
            strides=real.stride(),
            storage_offset=real.storage_offset(),
            dtype=real.dtype,
            device=DEVICE,
        )
        return made

    def __init__(self, real: Tensor) -> None:
        self.held = real

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> NoReturn:
        raise AssertionError(f"{func} outside of the mode")


class PretendedGpu(TorchDispatchMode):
    """While it is on, tensors lie on the CPU or on the pretended device, and never meet unseen."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = dict(kwargs or {}), func.overloadpacket.__name__
        tensors = [x for x in tree_flatten((args, kwargs))[0] if isinstance(x, Tensor)]
        here = [x for x in tensors if not isinstance(x, OnDevice) and x.dim()]
        there = [x for x in tensors if isinstance(x, OnDevice)]
        is_there = bool(there)
        if "device" in kwargs and kwargs["device"] is not None:
            is_there = torch.device(kwargs["device"]).type == DEVICE.type
            kwargs["device"] = torch.device("cpu")
        if name == "copy_":
            is_there = isinstance(args[0], OnDevice)
        if there and here and name not in _MOVES and not (name in _TAKES_INDICES and isinstance(args[0], OnDevice)):
            raise RuntimeError(f"{name}: {len(there)} tensors on the device, and {len(here)} on the CPU")
        if there and (name in _WAITS or (name in _MOVES and not is_there) or _has_a_shape_to_find(name, args, kwargs)):
            self.waits[name] += 1
        real_args, real_kwargs = tree_map(_real, (args, kwargs))
        with torch.no_grad():
            result = func(*real_args, **real_kwargs)
        if not is_there:
            return result
        wrapped = tree_map(lambda x: OnDevice(x) if isinstance(x, Tensor) else x, result)
        return return_and_correct_aliasing(func, args, kwargs, wrapped)


def _has_a_shape_to_find(name: str, args: Any, kwargs: Any) -> bool:
    """Whether the result's shape depends on numbers."""
    if name == "repeat_interleave":
        return kwargs.get("output_size") is None
    by_mask = [x for x in tree_flatten(args[1:])[0] if isinstance(x, Tensor) and x.dtype == torch.bool]
    return name in ("index", "index_put", "index_put_") and bool(by_mask)


def _real(value: Any) -> Any:
    return value.held if isinstance(value, OnDevice) else value


def moved(module: nn.Module) -> nn.Module:
    """The module with its parameters and buffers on the pretended device; tied ones stay tied."""
    parameters: dict[int, nn.Parameter] = {}
    for part in module.modules():
        for name, value in part._parameters.items():
            if value is not None:
                there: Tensor = OnDevice(value.detach())
                part._parameters[name] = parameters.setdefault(id(value), nn.Parameter(there))
        for name, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[name] = OnDevice(buffer)
    return module
