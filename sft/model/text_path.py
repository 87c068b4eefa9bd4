"""Which part of a model text goes through: all of a language model; of a checkpoint with eyes or ears, its decoder.

The loss is computed from that decoder and the output layer, so nothing else takes part in it. Nothing else is trained:
it gets no optimizer state, is never changed, and goes into the export as it lies in the model's files.
"""

from typing import Any

from torch import nn


def text_decoder(model: Any) -> nn.Module:
    """The module from token ids to hidden states."""
    is_composite = model.config.get_text_config() is not model.config
    decoder: nn.Module = model.get_decoder() if is_composite else model.base_model
    return decoder


def freeze_the_rest(model: Any) -> None:
    """Leave `requires_grad` to those parameters that text goes through, and of these to what had it."""
    used = {id(p) for p in text_decoder(model).parameters()}
    used |= {id(p) for module in (model.get_output_embeddings(), model.get_input_embeddings()) for p in _of(module)}
    for parameter in model.parameters():
        if id(parameter) not in used:
            parameter.requires_grad_(False)


def _of(module: nn.Module | None) -> list[nn.Parameter]:
    return [] if module is None else list(module.parameters())
