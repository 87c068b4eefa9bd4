"""Turns off randomness in a model's forward pass: dropout, skipped layers, noise in the routing to experts."""

import re

from torch import nn
from torch.nn.modules.dropout import _DropoutNd

_RATE = re.compile(r".*drop.*|(input_)?jitter_noise|moe_jitter_eps")


def turn_dropout_off(model: nn.Module) -> None:
    """Set every rate that the modules of `model` hold to zero. Its config does not change, nor does the exported model.

    transformers' modules hold rates as `nn.Dropout`, or as numbers under names such as `attention_dropout`. The probe
    finds a model that is random in another way (see `packing_probe`).
    """
    for module in model.modules():
        if isinstance(module, _DropoutNd):
            module.p = 0.0
        for name, value in vars(module).items():
            if type(value) is float and _RATE.fullmatch(name):
                setattr(module, name, 0.0)
