"""Lets decoder layers of a transformers model compute their activations again in the backward pass.

Such a layer keeps its input, the hidden states, and nothing else. The input may wait in the host's memory. A layer that
is computed again gives the same numbers: it runs the same kernels on the same input, and draws the same dropout.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

from sft.config_training import TrainConfig
from sft.errors import UserError
from sft.model.text_path import text_decoder
from sft.recomputed_layers import recomputed_layers


def recompute_layers(model: Any, train: TrainConfig) -> None:
    """Turn it on for the layers that `train.activation_checkpointing` names, before the engine takes the model.

    Raises:
        UserError: its class cannot do it, or only for all layers together.
    """
    choice = train.activation_checkpointing
    if choice == "none":
        return
    # transformers 5.23 renamed the method.
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    try:
        enable({"use_reentrant": False})
    except ValueError as error:
        raise UserError(
            f"train.activation_checkpointing: {choice}: the layers of {type(model).__name__} cannot be computed again "
            "in the backward pass. Set it to none."
        ) from error
    layers = decoder_layers(model)
    chosen = recomputed_layers(choice, len(layers))
    if not layers and choice not in ("auto", "all"):
        raise UserError(
            f"train.activation_checkpointing: {choice}: {type(model).__name__} computes all of its layers again, or "
            "none. Set it to all or none."
        )
    for i, layer in enumerate(layers):
        layer.gradient_checkpointing = i in chosen
    if train.offload_activations == "cpu":
        for module in model.modules():
            if hasattr(module, "_gradient_checkpointing_func"):
                module._gradient_checkpointing_func = _checkpoint_from_host


def decoder_layers(model: Any) -> list[Any]:
    """The layers of the decoder that can be computed again one by one, in their order."""
    found: list[nn.Module] = []
    inside: set[nn.Module] = set()
    for module in text_decoder(model).modules():
        if isinstance(module, GradientCheckpointingLayer) and module not in inside:
            found.append(module)
            inside.update(module.modules())
    return found


def _checkpoint_from_host(function: Callable[..., Any], *arguments: Any) -> Any:
    # Within the layer, checkpoint's own hooks apply: these here see only its inputs.
    with saved_tensors_hooks(_to_host, _from_host):
        return checkpoint(function, *arguments, use_reentrant=False)


def _to_host(tensor: Tensor) -> tuple[torch.device, Tensor]:
    """Both copies are queued behind the kernels before them, so nobody waits, and the order keeps them right."""
    if not tensor.is_cuda:
        return tensor.device, tensor
    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    return tensor.device, host.copy_(tensor, non_blocking=True)


def _from_host(packed: tuple[torch.device, Tensor]) -> Tensor:
    device, host = packed
    return host.to(device, non_blocking=True)
