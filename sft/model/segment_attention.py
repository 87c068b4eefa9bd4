"""Attention inside each segment of a packed row, for what FlashAttention does not take, on any device.

    segment by segment    one call for each; costs the sum of the squares of the lengths
    in groups             segments of like length side by side, padded behind: on a GPU a thousand short segments are a
                          few calls, not a thousand
    in blocks of queries  written out, for capped scores and sinks; no more than a block's scores are in memory

Shape suffixes: `N` segments, `H` heads of queries, `G` heads of keys, `T` tokens, `Q` queries and `K` keys of a block,
`D` head width.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from torch.utils.checkpoint import checkpoint
from torch.utils.weak import WeakTensorKeyDictionary

from sft.schema import IntArray

_LEAST_PADDED = 32
"""Segments up to this length are padded to a common one: they cost a kernel's start, not its work."""
_LEAST_FILLED = 0.75
"""Longer ones share a group if at least this share of it is tokens."""
_MANY = 4
"""Groups are used where they are this many times fewer than the segments: each takes more calls than a segment."""
_BLOCK_SCORES = 1 << 26
"""How many scores a block of queries may have: 256 MiB in float32."""


class Scores(NamedTuple):
    """How the scores of queries and keys become weights."""

    scaling: float | None = None
    """Default: 1 / sqrt(head width)."""
    window: int | None = None
    """A token looks at itself and the `window - 1` tokens before it."""
    softcap: float | None = None
    """Scores s become `softcap * tanh(s / softcap)` (Gemma 2, arXiv 2408.00118)."""
    sinks_H: Tensor | None = None
    """A score for each head that takes its share of the weights and gives nothing (gpt-oss)."""

    @property
    def is_plain(self) -> bool:
        """Whether torch's own function computes it."""
        return self.softcap is None and self.sinks_H is None


Attend = Callable[[Tensor, Tensor, Tensor, Scores], Tensor]
"""Causal attention of segments of one length: (N, H, T, D), (N, G, T, D), (N, G, T, D) → (N, H, T, D)."""


class Group(NamedTuple):
    """Segments that are computed side by side."""

    shape: tuple[int, int]
    """(segments, tokens of the longest)."""
    taken: Tensor
    """For each slot the token of the row that is laid there; in padding, the segment's last."""
    kept: Tensor
    """The slots that are not padding."""


class Groups(NamedTuple):
    """All groups of a row, and for each token of the row where it is among the kept slots of all."""

    groups: tuple[Group, ...]
    in_order: Tensor


class _Row(NamedTuple):
    lengths: list[int]
    groups: Groups | None


_rows: Any = WeakTensorKeyDictionary()
"""What is known of a row by its `cu_seqlens`: all layers of a micro-batch wait for these numbers once."""


def attend_by_segment(query: Tensor, key: Tensor, value: Tensor, scores: Scores, cu_seqlens: Tensor) -> Tensor:
    """The attention of one packed row: (1, H, T, D), (1, G, T, D), (1, G, T, D') → (1, T, H, D')."""
    if cu_seqlens not in _rows:
        lengths = _lengths(cu_seqlens)
        are_many = _starts_kernels(query) and _MANY * len(like_lengths(lengths)) <= len(lengths)
        _rows[cu_seqlens] = _Row(lengths, group_segments(lengths, query.device) if are_many else None)
    row: _Row = _rows[cu_seqlens]
    attend = _attend_plain if scores.is_plain else attend_in_blocks
    if row.groups is not None:
        return attend_in_groups(query, key, value, scores, row.groups, attend)
    parts = zip(*(torch.split(x, row.lengths, dim=2) for x in (query, key, value)), strict=True)
    return torch.cat([attend(q, k, v, scores) for q, k, v in parts], dim=2).transpose(1, 2).contiguous()


def _lengths(cu_seqlens: Tensor) -> list[int]:
    lengths: list[int] = cu_seqlens.cpu().diff().tolist()
    return lengths


def like_lengths(lengths: Sequence[int]) -> list[list[int]]:
    """The segments in groups whose lengths are alike, by their numbers; the longest of each group first."""
    groups: list[list[int]] = []
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        longest = lengths[groups[-1][0]] if groups else 0
        if longest and (longest <= _LEAST_PADDED or lengths[i] >= _LEAST_FILLED * longest):
            groups[-1].append(i)
        else:
            groups.append([i])
    return groups


def group_segments(lengths: Sequence[int], device: torch.device) -> Groups:
    """The segments of a row in groups, as indices on `device`."""

    def on_device(indices: IntArray) -> Tensor:
        return torch.from_numpy(indices).to(device)

    starts = np.cumsum([0, *lengths[:-1]])
    groups, places = [], []
    for group in like_lengths(lengths):
        own = np.array([lengths[i] for i in group])[:, None]
        at = np.arange(lengths[group[0]])
        place_NT, is_token_NT = starts[group][:, None] + np.minimum(at, own - 1), at < own
        groups.append(Group(place_NT.shape, on_device(place_NT.ravel()), on_device(np.flatnonzero(is_token_NT))))
        places.append(place_NT[is_token_NT])
    return Groups(tuple(groups), on_device(np.argsort(np.concatenate(places))))


def attend_in_groups(
    query: Tensor, key: Tensor, value: Tensor, scores: Scores, groups: Groups, attend: Attend
) -> Tensor:
    """The same as `attend_by_segment`, one call for each group.

    Padding is behind a segment, where its own tokens do not look, and its output is left out: so it has no gradient.
    """
    outputs = []
    for (segments, length), taken, kept in groups.groups:

        def laid_out(tensor: Tensor, at: Tensor = taken, of: tuple[int, int] = (segments, length)) -> Tensor:
            heads, width = tensor.shape[1], tensor.shape[3]
            return tensor.squeeze(0).index_select(1, at).view(heads, *of, width).transpose(0, 1)

        output = attend(laid_out(query), laid_out(key), laid_out(value), scores)
        outputs.append(output.transpose(1, 2).flatten(0, 1).index_select(0, kept))
    return torch.cat(outputs).index_select(0, groups.in_order).unsqueeze(0)


def attend_in_blocks(query: Tensor, key: Tensor, value: Tensor, scores: Scores) -> Tensor:
    """`Attend`, written out: for each block of queries, against the keys that it can see.

    A block is computed again in the backward pass, so its scores are not kept.
    """
    num_heads, length = query.shape[0] * query.shape[1], query.shape[2]
    rows = max(1, _BLOCK_SCORES // (num_heads * length))
    outputs = []
    for first, last in _blocks(length, rows):
        begin = 0 if scores.window is None else max(0, first - scores.window + 1)
        of_block = query[:, :, first:last], key[:, :, begin:last], value[:, :, begin:last]
        attend = partial(_attend_block, scores=scores, behind=first - begin)
        outputs.append(
            checkpoint(attend, *of_block, use_reentrant=False) if torch.is_grad_enabled() else attend(*of_block)
        )
    return torch.cat(outputs, dim=2)


def _attend_block(q_NHQD: Tensor, k_NGKD: Tensor, v_NGKD: Tensor, scores: Scores, behind: int) -> Tensor:
    """`behind`: the place of the first query among the keys."""
    segments, num_groups, num_queries, width = len(q_NHQD), k_NGKD.shape[1], *q_NHQD.shape[2:]
    queries = q_NHQD.reshape(segments, num_groups, -1, num_queries, width)
    scaling = width**-0.5 if scores.scaling is None else scores.scaling
    logits = (queries @ k_NGKD.unsqueeze(2).mT).float() * scaling  # (N, G, H / G, Q, K)
    if scores.softcap is not None:
        logits = scores.softcap * torch.tanh(logits / scores.softcap)
    seen = _band(num_queries, k_NGKD.shape[2], behind, scores.window, logits.device)
    logits = logits.masked_fill(~seen, -torch.inf)
    if scores.sinks_H is not None:
        sinks = scores.sinks_H.float().reshape(1, num_groups, -1, 1, 1)
        logits = torch.cat([logits, sinks.expand(*logits.shape[:-1], 1)], dim=-1)
    weights = logits.softmax(-1)[..., : k_NGKD.shape[2]].to(v_NGKD.dtype)
    output: Tensor = weights @ v_NGKD.unsqueeze(2)
    return output.flatten(1, 2)


def _attend_plain(query: Tensor, key: Tensor, value: Tensor, scores: Scores) -> Tensor:
    length, grouped = query.shape[2], query.shape[1] != key.shape[1]
    is_banded = scores.window is not None and length > scores.window
    if grouped and _starts_kernels(query):
        # torch's function with memory in proportion to the length takes equal heads only; the other keeps all scores.
        key, value = (x.repeat_interleave(query.shape[1] // x.shape[1], dim=1) for x in (key, value))
        grouped = False
    mask = _band(length, length, 0, scores.window, query.device) if is_banded else None
    return scaled_dot_product_attention(
        query, key, value, attn_mask=mask, is_causal=mask is None, scale=scores.scaling, enable_gqa=grouped
    )


def _band(num_queries: int, num_keys: int, behind: int, window: int | None, device: torch.device) -> Tensor:
    """True where a token may look: at itself and the `window - 1` tokens before it. (Q, K)."""
    queries = torch.arange(behind, behind + num_queries, device=device)
    distance = queries.unsqueeze(1) - torch.arange(num_keys, device=device).unsqueeze(0)
    return distance >= 0 if window is None else (distance >= 0) & (distance < window)


def _blocks(length: int, rows: int) -> Iterator[tuple[int, int]]:
    return ((first, min(first + rows, length)) for first in range(0, length, rows))


def _starts_kernels(tensor: Tensor) -> bool:
    """Whether each operation is a kernel that the host starts, as on GPUs."""
    return tensor.device.type != "cpu"
