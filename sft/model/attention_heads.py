"""How many heads of attention each layer has: seen as it calls attention, whatever its config says.

A model that was not loaded yet is run without numbers, which does not work for every class. A loaded one is run.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from transformers import AttentionInterface

from sft.data.rendering.chat_template import RAISED_BY_CODE
from sft.model.attention import attention_of, packed_attention
from sft.model.text_path import run_traced, traced_attention

_COUNTED_ATTENTION = "sft_counted"

Heads = tuple[int, int]
"""(of queries, of keys)."""


def attention_heads(skeleton: Any) -> list[Heads]:
    """The heads that any layer has, each pair once; those of the first layers, or none, if more cannot be seen.

    Args:
        skeleton: the model on the meta device.
    """
    found = _count(traced_attention)
    for has_mask in (False, True):
        try:
            run_traced(skeleton, _COUNTED_ATTENTION, has_mask)
            break
        except RAISED_BY_CODE:  # a class may do anything with numbers that are not there
            continue
    return sorted(found)


@contextmanager
def heads_seen(model: nn.Module) -> Iterator[set[Heads]]:
    """The heads that any layer has attended with to packed rows: a set that fills until the block ends."""
    found = _count(packed_attention)
    with attention_of(model, _COUNTED_ATTENTION):
        yield found


def _count(attention: Callable[..., tuple[Tensor, None]]) -> set[Heads]:
    """Register an attention that does what the given one does, and notes the heads of each call in what is returned."""
    found: set[Heads] = set()

    def counted(
        module: nn.Module, query_BHTD: Tensor, key_BHTD: Tensor, value_BHTD: Tensor, *mask: Any, **options: Any
    ) -> tuple[Tensor, None]:
        found.add((query_BHTD.shape[1], key_BHTD.shape[1]))
        return attention(module, query_BHTD, key_BHTD, value_BHTD, *mask, **options)

    AttentionInterface.register(_COUNTED_ATTENTION, counted)
    return found
