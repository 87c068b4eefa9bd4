"""Causal attention inside each segment of a packed row, plugged into any Hugging Face model.

It is torch's own variable-length FlashAttention where that takes the tensors. Elsewhere (CPUs, float32, wide heads,
GPUs before Ampere) it is one scaled-dot-product call for each segment, which costs the sum of the squares of the
segments and not the square of their sum.

Shape suffixes: `B` rows (always 1), `H` heads, `T` tokens, `D` head width.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, PreTrainedConfig

from sft.data.collate import Layout
from sft.errors import UserError

PACKED_ATTENTION = "sft_packed"
"""The value for `attn_implementation`."""

_FLASH_DTYPES = {torch.float16, torch.bfloat16}
_FLASH_MAX_WIDTH = 256


def packed_attention(  # noqa: PLR0913  (the signature is that of transformers' attention functions)
    module: nn.Module,
    query_BHTD: Tensor,
    key_BHTD: Tensor,
    value_BHTD: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    sliding_window: int | None = None,
    dropout: float = 0.0,
    cu_seq_lens_q: Tensor | None = None,
    max_length_q: int = 0,
    **options: Any,
) -> tuple[Tensor, None]:
    """The function that transformers calls in each layer. Returns the output as (B, T, H, D), and no weights.

    Raises:
        UserError: the model asks for a kind of attention that is not built here.
    """
    for name in ("softcap", "s_aux", "position_bias"):
        if options.get(name) is not None:
            raise UserError(f"model: {type(module).__name__} needs attention with {name}, which packs do not support")
    if cu_seq_lens_q is None:
        raise UserError(f"model: {type(module).__name__} is not told where the examples of a pack begin")
    if dropout:
        raise UserError(f"model: {type(module).__name__} drops attention weights, which packs do not support")
    attend = _attend_flash if _suits_flash(query_BHTD, key_BHTD, value_BHTD) else _attend_by_segment
    return attend(query_BHTD, key_BHTD, value_BHTD, scaling, sliding_window, cu_seq_lens_q, max_length_q), None


def layout_of(packing: str) -> Layout:
    """The layout that `train.packing` names. `auto` is resolved before (see `sft.model.layout`), or is packed."""
    return "one_example" if packing == "one_example" else "packed"


def attention_for(layout: Layout) -> str | None:
    """The `attn_implementation` of a layout; None leaves the choice to transformers."""
    return PACKED_ATTENTION if layout == "packed" else None


@contextmanager
def attention_of(model: nn.Module, name: str) -> Iterator[None]:
    """Make all layers of `model` use the attention called `name`, until the block ends.

    Not by `set_attn_implementation`, which inspects the source of some models and leaves them unchanged.
    """
    configs = {id(c): c for m in model.modules() if isinstance(c := getattr(m, "config", None), PreTrainedConfig)}
    before = {key: config._attn_implementation_internal for key, config in configs.items()}
    try:
        for config in configs.values():
            config._attn_implementation_internal = name
        yield
    finally:
        for key, config in configs.items():
            config._attn_implementation_internal = before[key]


def _suits_flash(query_BHTD: Tensor, key_BHTD: Tensor, value_BHTD: Tensor) -> bool:
    """Whether FlashAttention 2 takes them (https://github.com/Dao-AILab/flash-attention)."""
    widths = {x.shape[-1] for x in (query_BHTD, key_BHTD, value_BHTD)}
    return (
        query_BHTD.is_cuda
        and {x.dtype for x in (query_BHTD, key_BHTD, value_BHTD)} <= _FLASH_DTYPES
        and len(widths) == 1
        and max(widths) % 8 == 0
        and max(widths) <= _FLASH_MAX_WIDTH
        and _has_flash(query_BHTD.device)
    )


@cache
def _has_flash(device: torch.device) -> bool:
    return torch.version.hip is None and torch.cuda.get_device_capability(device) >= (8, 0)


def _attend_by_segment(
    query_BHTD: Tensor,
    key_BHTD: Tensor,
    value_BHTD: Tensor,
    scaling: float | None,
    window: int | None,
    cu_seqlens: Tensor,
    max_seqlen: int,
) -> Tensor:
    lengths = _lengths(cu_seqlens)
    grouped = query_BHTD.shape[1] != key_BHTD.shape[1]
    outputs = []
    for q, k, v in zip(*(torch.split(x, lengths, dim=2) for x in (query_BHTD, key_BHTD, value_BHTD)), strict=True):
        length = q.shape[2]
        mask = _band(length, window, q.device) if window is not None and length > window else None
        outputs.append(
            scaled_dot_product_attention(
                q, k, v, attn_mask=mask, is_causal=mask is None, scale=scaling, enable_gqa=grouped
            )
        )
    return torch.cat(outputs, dim=2).transpose(1, 2).contiguous()


def _lengths(cu_seqlens: Tensor) -> list[int]:
    lengths: list[int] = cu_seqlens.diff().tolist()
    return lengths


def _band(length: int, window: int, device: torch.device) -> Tensor:
    """True where a token may look: at itself and the `window - 1` tokens before it. (T, T)."""
    at = torch.arange(length, device=device)
    distance = at.unsqueeze(1) - at.unsqueeze(0)
    return (distance >= 0) & (distance < window)


def _attend_flash(
    query_BHTD: Tensor,
    key_BHTD: Tensor,
    value_BHTD: Tensor,
    scaling: float | None,
    window: int | None,
    cu_seqlens: Tensor,
    max_seqlen: int,
) -> Tensor:
    # Imported here because builds of torch for the CPU may lack it.
    from torch.nn.attention.varlen import varlen_attn  # noqa: PLC0415

    q_THD, k_THD, v_THD = (x.squeeze(0).transpose(0, 1) for x in (query_BHTD, key_BHTD, value_BHTD))
    look_back = -1 if window is None else window - 1
    # The kernel takes grouped heads as they are. Before torch 2.12 the function around it does so without a word.
    grouped: dict[str, Any] = {"enable_gqa": True} if "enable_gqa" in (varlen_attn.__kwdefaults__ or {}) else {}
    out_THD = varlen_attn(
        q_THD,
        k_THD,
        v_THD,
        cu_seqlens,
        cu_seqlens,
        max_seqlen,
        max_seqlen,
        scale=scaling,
        window_size=(look_back, 0),
        **grouped,
    )
    assert isinstance(out_THD, Tensor)
    return out_THD.unsqueeze(0)


AttentionInterface.register(PACKED_ATTENTION, packed_attention)
