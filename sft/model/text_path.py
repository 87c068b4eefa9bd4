"""Which parameters of a model text goes through: those that take part in the loss, and no others.

They are found by a forward and a backward pass without numbers, on torch's meta device: either a gradient reaches a
parameter or it does not. So a checkpoint's encoders for images and sound, the layers that attend to their outputs, and
modules for other tasks are left out, whatever their names. They are not trained: they get no optimizer state, never
change, and go into the export as they are in the model's files.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface

from sft.data.rendering.chat_template import RAISED_BY_CODE
from sft.errors import UserError

_TRACED_ATTENTION = "sft_traced"
_TRACED_TOKENS = 256
"""More tokens than layers need that compress their past."""
_TRACED_EXPERTS = "batched_mm"
"""transformers' implementation of experts that needs no numbers: it does not look at which token goes where."""


def text_decoder(model: Any) -> nn.Module:
    """The module from token ids to hidden states.

    Raises:
        UserError: it has no decoder apart from the output layer.
    """
    is_composite = model.config.get_text_config() is not model.config
    decoder: Any = model.get_decoder() if is_composite else model.base_model
    # Llama 4's language model returns itself as its own base model.
    body = getattr(decoder, "model", None) if decoder.get_output_embeddings() is not None else decoder
    if not isinstance(body, nn.Module):
        raise UserError(f"model: {type(model).__name__} has no decoder apart from its output layer")
    return body


def frozen_parameters(skeleton: Any) -> frozenset[str]:
    """The names of the parameters that its class does not train, or that text does not go through.

    Args:
        skeleton: the model on the meta device, as its class makes it: loading weights would turn `requires_grad` on.
    """
    used = _traced(skeleton)
    return frozenset(n for n, p in skeleton.named_parameters() if not p.requires_grad or id(p) not in used)


def _traced(skeleton: Any) -> set[int]:
    """The ids of the parameters that a gradient reaches; if it cannot be tried, those of decoder and output layer."""
    for has_mask in (False, True):
        try:
            return _reached(skeleton, has_mask)
        except UserError:
            raise
        except RAISED_BY_CODE:  # a class may do anything with numbers that are not there
            continue
    modules = [text_decoder(skeleton), skeleton.get_output_embeddings(), skeleton.get_input_embeddings()]
    return {id(p) for module in modules if module is not None for p in module.parameters()}


def _reached(skeleton: Any, has_mask: bool) -> set[int]:
    """The ids of the parameters that a gradient reaches.

    Args:
        skeleton: the model on the meta device.
        has_mask: whether it gets a mask, which some classes use outside of attention to choose tokens.
    """
    try:
        logits: Any = run_traced(skeleton, _TRACED_ATTENTION, has_mask)
        logits.sum().backward()
        return {id(parameter) for parameter in skeleton.parameters() if parameter.grad is not None}
    finally:
        skeleton.zero_grad()


def run_traced(skeleton: Any, attention: str, has_mask: bool) -> Tensor:
    """The logits of a row of text, without numbers.

    Args:
        skeleton: the model on the meta device.
        attention: the implementation by its name.
        has_mask: see `_reached`.

    Raises:
        Exception: anything that the class raises where there are no numbers.
    """
    config = skeleton.config
    before = config._attn_implementation, getattr(config, "_experts_implementation", None)
    try:
        config._attn_implementation, config._experts_implementation = attention, _TRACED_EXPERTS
        with torch.device("meta"), torch.enable_grad():
            ids = torch.zeros(1, _TRACED_TOKENS, dtype=torch.long)
            options: dict[str, Any] = {"input_ids": ids, "position_ids": ids, "use_cache": False}
            if has_mask:
                options["attention_mask"] = torch.zeros(1, 1, _TRACED_TOKENS, _TRACED_TOKENS)
            hidden = text_decoder(skeleton.eval())(**options).last_hidden_state
            logits: Tensor = skeleton.get_output_embeddings()(hidden)
            return logits
    finally:
        config._attn_implementation, config._experts_implementation = before


def traced_attention(
    module: nn.Module, query_BHTD: Tensor, key_BHTD: Tensor, value_BHTD: Tensor, *mask: Any, **options: Any
) -> tuple[Tensor, None]:
    """A tensor of the right shape that depends on everything that attention depends on.

    There may be more keys than queries: some models add a compressed form of their past.
    """
    parts = (key_BHTD, *(given for given in options.values() if isinstance(given, Tensor)))
    total = torch.stack([part.float().sum() for part in parts]).sum().to(value_BHTD.dtype)
    groups = query_BHTD.shape[1] // value_BHTD.shape[1]
    seen_BH1D = value_BHTD.repeat_interleave(groups, dim=1).sum(dim=2, keepdim=True)
    return (query_BHTD.sum(dim=-1, keepdim=True) + seen_BH1D + total).transpose(1, 2), None


AttentionInterface.register(_TRACED_ATTENTION, traced_attention)
