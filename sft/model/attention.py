"""Causal attention inside each segment of a packed row, plugged into any Hugging Face model.

It is torch's own variable-length FlashAttention where that takes the tensors (`flash_attention`). Elsewhere (CPUs,
float32, wide heads, capped scores, GPUs before Ampere) it is `segment_attention`, whose cost is the sum of the squares
of the segments, not the square of their sum.

Shape suffixes: `B` rows (always 1), `H` heads, `T` tokens, `D` head width. Where ranks share a row, `T` are those of a
part (see `sequence_parallel`).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedConfig

from sft.data.collate import Layout
from sft.errors import UserError
from sft.model.flash_attention import attend_flash, suits_flash
from sft.model.segment_attention import Scores, attend_by_segment
from sft.model.sequence_parallel import SplitRow

PACKED_ATTENTION = "sft_packed"
"""The value for `attn_implementation`."""
_IN_FLOAT32 = "sft_packed_in_float32"


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
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    cu_seq_lens_q: Tensor | None = None,
    max_length_q: int = 0,
    split_row: SplitRow | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """The function that transformers calls in each layer. Returns the output as (B, T, H, D), and no weights.

    With `split_row`, which takes the place of the other boundaries, the tokens are those of one rank's part of the row.

    Raises:
        UserError: the model asks for a kind of attention that is not built here.
    """
    if options.get("position_bias") is not None:
        raise UserError(
            f"model: {type(module).__name__} needs attention with position_bias, which packs do not support"
        )
    if split_row is not None:
        cu_seq_lens_q, max_length_q = split_row.cu_seqlens, split_row.max_seqlen
    if cu_seq_lens_q is None:
        raise UserError(f"model: {type(module).__name__} is not told where the examples of a pack begin")
    if dropout:
        raise UserError(f"model: {type(module).__name__} drops attention weights, which packs do not support")
    if split_row is not None:
        query_BHTD, key_BHTD, value_BHTD = split_row.group.own_heads(query_BHTD, key_BHTD, value_BHTD)
        s_aux = None if s_aux is None else split_row.group.own_sinks(s_aux)
    scores = Scores(scaling, sliding_window, softcap, s_aux)
    output_BTHD = _attend(query_BHTD, key_BHTD, value_BHTD, scores, cu_seq_lens_q, max_length_q)
    return output_BTHD if split_row is None else split_row.group.own_tokens(output_BTHD), None


def _attend(query: Tensor, key: Tensor, value: Tensor, scores: Scores, cu_seqlens: Tensor, max_seqlen: int) -> Tensor:
    if scores.is_plain and suits_flash(query, key, value):
        return attend_flash(query, key, value, scores.scaling, scores.window, cu_seqlens, max_seqlen)
    return attend_by_segment(query, key, value, scores, cu_seqlens)


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


@contextmanager
def other_rounding(model: nn.Module, layout: Layout) -> Iterator[None]:
    """Make `model` compute the attention of its layout in another arithmetic, until the block ends.

    The result differs by what rounding does in this model: packs are attended in float32, rows of one example by the
    reference attention of the model's authors.
    """
    with attention_of(model, _IN_FLOAT32 if layout == "packed" else "eager"):
        yield


def _packed_attention_in_float32(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    output, _ = packed_attention(module, query.float(), key.float(), value.float(), attention_mask, **options)
    return output.to(query.dtype), None


AttentionInterface.register(PACKED_ATTENTION, packed_attention)
AttentionInterface.register(_IN_FLOAT32, _packed_attention_in_float32)
