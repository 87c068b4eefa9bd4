"""Bytes and kernels of a decoder layer besides its matrix products and attention, with and without fused kernels.

    OMP_NUM_THREADS=1 python benchmarks/layer_traffic.py

Nothing is run: the layer goes forward and backward on torch's meta device, and each operation counts as one kernel that
reads its inputs and writes its outputs once. Views, empty tensors, matrix products and attention do not count.
"""

import argparse
import contextlib
from collections.abc import Iterator
from typing import Any, NamedTuple
from unittest import mock

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AttentionInterface, AutoConfig, AutoModelForCausalLM

from sft.model import fused
from sft.model.kernels import OURS, fuse

NO_ATTENTION = "no_attention"
SHAPES: dict[str, dict[str, Any]] = {
    "Qwen2.5-0.5B": {
        "model_type": "qwen2",
        "hidden_size": 896,
        "intermediate_size": 4864,
        "num_attention_heads": 14,
        "num_key_value_heads": 2,
    },
    "Llama 8B": {
        "model_type": "llama",
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
    },
    "Qwen3-8B": {
        "model_type": "qwen3",
        "hidden_size": 4096,
        "intermediate_size": 12288,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
    },
}
_UNCOUNTED = {"mm", "addmm", "bmm", "empty", "empty_like", "empty_strided", "new_empty"}
_UNCOUNTED |= {"_unsafe_view", "detach", "promote_types"}


class Count(NamedTuple):
    kernels: int
    num_bytes: int


class Traffic(TorchDispatchMode):
    """Counts what torch does."""

    def __init__(self) -> None:
        super().__init__()
        self.kernels = self.num_bytes = 0

    def add(self, values: Any) -> None:
        tensors = {id(x): x for x in tree_leaves(values) if isinstance(x, Tensor)}
        self.kernels += 1
        self.num_bytes += sum(min(x.numel() * x.itemsize, x.untyped_storage().nbytes()) for x in tensors.values())

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        is_view = any(each.alias_info is not None and not each.alias_info.is_write for each in func._schema.returns)
        if not is_view and func._schema.name.removeprefix("aten::") not in _UNCOUNTED:
            self.add((args, kwargs, made))
        return made


class CountedKernels:
    """In place of the Triton kernels: each counts its tensors instead of filling them."""

    def __init__(self, traffic: Traffic) -> None:
        self._traffic = traffic

    def __getattr__(self, _name: str) -> Any:
        return self

    def __getitem__(self, _grid: Any) -> Any:
        return lambda *args, **_options: self._traffic.add(args)


class _NoAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        ctx.save_for_backward(query, key, value)
        return torch.empty(query.transpose(1, 2).shape, dtype=query.dtype, device=query.device)

    @staticmethod
    def backward(ctx: Any, *_gradients: Tensor) -> tuple[Tensor, ...]:
        return tuple(torch.empty_like(x) for x in ctx.saved_tensors)


def _no_attention(_module: Any, query: Tensor, key: Tensor, value: Tensor, *_: Any, **_options: Any) -> Any:
    return _NoAttention.apply(query, key, value), None


AttentionInterface.register(NO_ATTENTION, _no_attention)


@contextlib.contextmanager
def kernels_counted_by(traffic: Traffic) -> Iterator[None]:
    with (
        mock.patch.object(fused, "_kernels", return_value=CountedKernels(traffic)),
        mock.patch.object(fused, "runs_on", return_value=True),
    ):
        yield


def layer_traffic(shape: dict[str, Any], num_tokens: int, has_kernels: bool) -> tuple[Count, Count]:
    """One layer forward, and backward."""
    config = AutoConfig.for_model(**{**shape, "num_hidden_layers": 1, "vocab_size": 64})
    build: Any = AutoModelForCausalLM.from_config
    small = build(config, attn_implementation=NO_ATTENTION, dtype=torch.bfloat16)
    if has_kernels:
        fuse(small, OURS, torch.device("cpu"))
    model = small.to("meta").model
    hidden = torch.empty(1, num_tokens, config.hidden_size, dtype=torch.bfloat16, device="meta", requires_grad=True)
    positions = torch.zeros(1, num_tokens, dtype=torch.int64, device="meta")
    tables = model.rotary_emb(hidden, positions)
    with Traffic() as traffic, kernels_counted_by(traffic):
        made = model.layers[0](hidden, position_embeddings=tables)
        forward = Count(traffic.kernels, traffic.num_bytes)
        torch.autograd.backward(made, torch.empty_like(made))
        backward = Count(traffic.kernels - forward.kernels, traffic.num_bytes - forward.num_bytes)
    return forward, backward


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=8192)
    num_tokens = parser.parse_args().tokens
    print("| layer | | kernels forward | backward | GB forward | backward |\n|---|---|---:|---:|---:|---:|")
    for name, shape in SHAPES.items():
        for has_kernels in (False, True):
            there, back = layer_traffic(shape, num_tokens, has_kernels)
            sizes = " | ".join(f"{each.num_bytes / 1e9:.2f}" for each in (there, back))
            how = "fused" if has_kernels else "torch"
            print(f"| {name} | {how} | {there.kernels} | {back.kernels} | {sizes} |")


if __name__ == "__main__":
    main()
