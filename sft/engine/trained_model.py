"""The model as an engine trains it: loaded, without or with its dropout, its activations kept or computed again."""

import torch

from sft.config import SftConfig
from sft.model.attention import attention_for, layout_of
from sft.model.dropout import turn_dropout_off
from sft.model.loading import load_model
from sft.model.loss import SupervisedNll


def load_trained(config: SftConfig, path: str, zero_config: dict[str, object] | None = None) -> SupervisedNll:
    """The model at `path` with its loss, in training mode; with DeepSpeed's config, straight into shards."""
    dtype = getattr(torch, config.model.dtype)
    model = load_model(config.model, path, dtype, zero_config, attention_for(layout_of(config.train.packing)))
    if config.model.dropout == "none":
        turn_dropout_off(model)
    if config.train.activation_checkpointing:
        # transformers 5.23 renamed the method.
        enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
        enable({"use_reentrant": False})
    model.train()
    return SupervisedNll(model, config.train.logits_chunk_tokens)
