"""Reads the prompts of a batch into keys and values that have room for the answers.

    prompts ──groups of like length──▶ the model ──keys and values──▶ one cache, padded on the left ──▶ `generate`

A batch of prompts of several lengths is padding for a good part, and its activations do not stay in a CPU's caches: a
group has little of it, and few tokens. The cache of transformers copies all keys and values for each token that is
added; this one writes it behind them.

Shape suffixes: `B` rows, `H` heads, `T` tokens, `D` head width.
"""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import Cache, DynamicCache, GenerationConfig
from transformers.cache_utils import DynamicLayer

Caching = Literal["none", "grown", "roomy"]
"""How keys and values, or states, of earlier tokens are kept: not at all, they are computed again for each token; as
transformers does it; or as it is done here, where it can be."""

_GROUP_TOKENS = {"cpu": 512}
_OTHER_GROUP_TOKENS = 8192
"""The most tokens of a group of several prompts. A GPU is idle with few; see `benchmarks/generation.py` for CPUs."""


def padded(prompts: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """The prompts, padded on the left so that all go on at the same place, and their mask: (B, T) both."""
    longest = max(map(len, prompts))
    ids_BT = torch.zeros(len(prompts), longest, dtype=torch.int64)
    mask_BT = torch.zeros_like(ids_BT)
    for i, prompt in enumerate(prompts):
        ids_BT[i, longest - len(prompt) :] = torch.tensor(prompt)
        mask_BT[i, longest - len(prompt) :] = 1
    return ids_BT, mask_BT


def roomy_cache(
    model: Any,
    prompts: Sequence[Sequence[int]],
    num_new_tokens: int,
    device: torch.device,
    group_tokens: int | None = None,
) -> dict[str, Cache]:
    """The argument of `generate` that is the cache; none where the model keeps anything else than all keys and values.

    Where the prompts are more than one group, it holds all of their tokens but the last; else nothing yet.

    Args:
        model: a Hugging Face causal language model whose class bears it (see `sft.answering.decoding`).
        prompts: of at least one token each.
        num_new_tokens: the most that is written behind the longest.
        device: where the model is.
        group_tokens: the most tokens of a group of several prompts, with padding. Default: what suits the device.
    """
    usual = DynamicCache(config=model.config.get_text_config(decoder=True)).layers
    if {type(layer) for layer in usual} != {DynamicLayer}:
        return {}
    longest = max(map(len, prompts))
    layers: list[Any] = [_RoomyLayer(len(prompts), longest + num_new_tokens) for _ in usual]
    groups = _groups([len(prompt) for prompt in prompts], group_tokens or _suiting(device))
    for rows in groups if len(groups) > 1 else []:
        read = _read(model, [prompts[i][:-1] for i in rows], device)
        for layer, own in zip(layers, read.layers, strict=True):
            layer.put(rows, longest - 1, own)
    return {"past_key_values": Cache(layers=layers)}


def _suiting(device: torch.device) -> int:
    return _GROUP_TOKENS.get(device.type, _OTHER_GROUP_TOKENS)


def _groups(lengths: Sequence[int], most_tokens: int) -> list[list[int]]:
    """Which rows are read together. Nothing is to be read of a prompt of one token, which is in none."""
    groups: list[list[int]] = []
    for i in sorted((i for i, length in enumerate(lengths) if length > 1), key=lengths.__getitem__):
        if groups and (len(groups[-1]) + 1) * lengths[i] <= most_tokens:
            groups[-1].append(i)
        else:
            groups.append([i])
    return groups


def _read(model: Any, prompts: Sequence[Sequence[int]], device: torch.device) -> Cache:
    """`generate` itself reads them: what a class of models needs for that, it knows."""
    ids, mask = padded(prompts)
    settings = GenerationConfig(max_new_tokens=1, do_sample=False, pad_token_id=0, return_dict_in_generate=True)
    output = model.generate(ids.to(device), attention_mask=mask.to(device), generation_config=settings)
    cache: Cache = output.past_key_values
    return cache


class _RoomyLayer(DynamicLayer):
    """The keys and values of a layer, (B, H, T, D): the front of a memory that holds those of all tokens to come."""

    def __init__(self, num_rows: int, num_tokens: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # transformers has no types for it
        self._num_rows, self._num_tokens = num_rows, num_tokens

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Take the memory."""
        super().lazy_initialization(key_states, value_states)
        # Zeros: attention weighs what stands at padding with 0.
        self._memory = [
            states.new_zeros(self._num_rows, states.shape[1], self._num_tokens, states.shape[3])
            for states in (key_states, value_states)
        ]

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **options: Any) -> tuple[Tensor, Tensor]:
        """Add those of new tokens; all of them."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start = self.get_seq_length()
        end = start + key_states.shape[2]
        for memory, states in zip(self._memory, (key_states, value_states), strict=True):
            memory[:, :, start:end] = states
        return self._show(end)

    def put(self, rows: Sequence[int], end: int, read: Any) -> None:
        """Take those of some rows, which end before token `end`, from a layer that has read them, if it keeps any."""
        if not read.is_initialized:
            return
        if not self.is_initialized:
            self.lazy_initialization(read.keys, read.values)
        for memory, states in zip(self._memory, (read.keys, read.values), strict=True):
            memory[rows, :, end - states.shape[2] : end] = states
        self._show(end)

    def _show(self, end: int) -> tuple[Tensor, Tensor]:
        keys, values = (memory[:, :, :end] for memory in self._memory)
        self.keys, self.values = keys, values
        return keys, values
