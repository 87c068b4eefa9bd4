"""How many heads of attention each layer has: seen as it calls attention, without numbers, whatever its config says."""

from typing import Any

from torch import Tensor, nn
from transformers import AttentionInterface

from sft.data.rendering.chat_template import RAISED_BY_CODE
from sft.model.text_path import run_traced, traced_attention

_COUNTED_ATTENTION = "sft_counted"


def attention_heads(skeleton: Any) -> list[tuple[int, int]]:
    """Each pair (heads of queries, heads of keys) that a layer has; empty if it cannot be seen.

    Args:
        skeleton: the model on the meta device.
    """
    found: set[tuple[int, int]] = set()

    def counted(
        module: nn.Module, query_BHTD: Tensor, key_BHTD: Tensor, value_BHTD: Tensor, *mask: Any, **options: Any
    ) -> tuple[Tensor, None]:
        found.add((query_BHTD.shape[1], key_BHTD.shape[1]))
        return traced_attention(module, query_BHTD, key_BHTD, value_BHTD, *mask, **options)

    AttentionInterface.register(_COUNTED_ATTENTION, counted)
    for has_mask in (False, True):
        try:
            run_traced(skeleton, _COUNTED_ATTENTION, has_mask)
            break
        except RAISED_BY_CODE:  # a class may do anything with numbers that are not there
            continue
    return sorted(found)
