"""Decoder layers whole: ZeRO-3's hooks run once for each layer, not for each of the dozen modules inside.

The hooks look up, gather and release parameters, all on the host. For a small model this takes longer than its own
kernels. A layer uses all of its parameters anyway, so it gathers them together ("leaf module", in DeepSpeed's words).

Only gathering is by layers. Gradients are still taken parameter by parameter: DeepSpeed's own hook for the gradients of
a leaf module runs too early where no gradient flows into the module, as behind frozen embeddings or for arguments by
name, and then takes zeros for them.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from deepspeed.utils.z3_leaf_module import set_z3_leaf_module
from torch import nn

from sft.engine.zero3_limits import PartSizes, split_elements


def gather_by_layers(engine: Any, decoder: nn.Module) -> None:
    """Let the engine gather each of the decoder's layers at once. Before its first forward pass."""
    for layer in whole_layers(decoder):
        set_z3_leaf_module(layer, True)
    # The hooks of the gradients are there by now. Those of the modules are set again, as DeepSpeed foresees it.
    offload = engine.optimizer.parameter_offload
    offload.destroy()
    for hooks in (offload.forward_hooks, offload.backward_hooks):
        hooks.clear()
    offload.setup_zero_stage3_hooks()


def whole_layers(decoder: nn.Module) -> list[nn.Module]:
    """The elements of its outermost lists that are computed in one piece: that have a forward pass, and parts.

    A layer that shares a module or parameter with another place in the model is left out: it is used at other times,
    too.
    """
    uses = Counter(id(p) for _, p in decoder.named_parameters(remove_duplicate=False))
    places = Counter(id(module) for _, module in decoder.named_modules(remove_duplicate=False))
    return [
        layer
        for layer in _elements(decoder)
        if places[id(layer)] == 1 and all(uses[id(parameter)] == 1 for parameter in layer.parameters())
    ]


def part_sizes(model: Any, decoder: nn.Module, size_of: Callable[[Any], int]) -> PartSizes:
    """The parts of a Hugging Face model that are whole at a time; `size_of` counts the elements of a parameter.

    They are those that `sft plan` counts from the model's config.json.
    """
    layers = [split_elements(map(size_of, layer.parameters())) for layer in whole_layers(decoder)]
    return PartSizes(max(layers, default=0), size_of(model.get_output_embeddings().weight))


def _elements(module: nn.Module) -> Iterator[nn.Module]:
    for child in module.children():
        is_list = isinstance(module, nn.ModuleList)
        if is_list and type(child).forward is not nn.Module.forward and any(True for _ in child.children()):
            yield child
        else:
            yield from _elements(child)
