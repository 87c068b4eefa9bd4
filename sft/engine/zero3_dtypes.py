"""ZeRO-3 with parameters of two dtypes: those that transformers keeps in float32 beside the others.

DeepSpeed 0.19.8 gathers them by dtype, and sums all gradients in float32. But it puts all parts of a rank into one flat
buffer of one dtype. Here there is a buffer for each run of groups of one dtype; with a single dtype all is as before.
`sft.engine.optimizers.decay_groups` gives groups of one dtype.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import groupby
from typing import Any

import torch
from deepspeed.accelerator import get_accelerator
from deepspeed.runtime.zero import stage3
from torch import Tensor, nn

from sft.errors import UserError

_ALL_REDUCE = "stage3_use_all_reduce_for_fetch_params"
_Optimizer = stage3.DeepSpeedZeroOptimizer_Stage3


@contextmanager
def buffers_by_dtype() -> Iterator[None]:
    """Inside, an engine is made whose groups of parameters may have different dtypes."""
    module: Any = stage3
    in_device, in_host = module.defragment, _Optimizer._create_param_groups_fp16_flat_cpu_memory
    module.defragment = lambda parts: _flat(in_device, parts)
    _Optimizer._create_param_groups_fp16_flat_cpu_memory = lambda optimizer: _in_host(in_host, optimizer)
    try:
        yield
    finally:
        module.defragment = in_device
        _Optimizer._create_param_groups_fp16_flat_cpu_memory = in_host


def check_gathering(model: nn.Module, zero_config: Mapping[str, Any]) -> None:
    """Refuse the one setting with which DeepSpeed cannot gather two dtypes.

    Raises:
        UserError: the model has two.
    """
    kept = [name for name, p in model.named_parameters() if p.dtype == torch.float32]
    if zero_config["zero_optimization"].get(_ALL_REDUCE) and 0 < len(kept) < sum(1 for _ in model.parameters()):
        raise UserError(
            f"deepspeed.extra.zero_optimization.{_ALL_REDUCE}: the model has parameters that stay in float32 "
            f"({kept[0].removeprefix('model.')}), and DeepSpeed cannot fetch them by an all-reduce together with the "
            "others. Remove the setting, or set model.dtype to float32.",
            is_everywhere=True,
        )


class _Buffers:
    """Buffers that lie one behind the other, as far as DeepSpeed cuts them into groups."""

    def __init__(self, buffers: Sequence[Tensor]) -> None:
        self._buffers = buffers

    def narrow(self, dim: int, start: int, length: int) -> Tensor:
        """A group, which lies in one buffer."""
        for buffer in self._buffers:
            if start < buffer.numel():
                return buffer.narrow(dim, start, length)
            start -= buffer.numel()
        raise IndexError(start)


def _flat(defragment: Any, parts: Sequence[Tensor]) -> Any:
    """The parts of all groups in flat buffers."""
    runs = [list(run) for _, run in groupby(parts, lambda part: part.dtype)]
    return defragment(parts) if len(runs) == 1 else _Buffers([defragment(run) for run in runs])


def _in_host(create: Any, optimizer: Any) -> None:
    """With parameters in host memory, DeepSpeed makes a buffer for each group, all in the dtype of the first."""
    create(optimizer)
    memory = optimizer.param_groups_fp16_flat_cpu_memory
    for i, group in enumerate(optimizer.trainable_param_groups):
        dtype: torch.dtype = group["params"][0].ds_tensor.dtype
        if memory[i].dtype != dtype:
            memory[i] = get_accelerator().pin_memory(torch.empty_like(memory[i], dtype=dtype))
