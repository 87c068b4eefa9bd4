"""The shape of a model of any family from its own safetensors files: exact parameters, activations like Llama's."""

import re
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from sft.sizing.families import Family
from sft.sizing.model_shape import Layer, ModelShape, build_shape

_EMBEDDINGS = re.compile(r"embed_tokens|wte|embed_in|word_embeddings|tok_embeddings")
_POSITIONS = re.compile(r"wpe|position")
_HEAD = re.compile(r"lm_head|embed_out|output\.weight$")


def shape_from_tensors(config: Mapping[str, Any], sizes: Mapping[str, int]) -> ModelShape:
    """The shape of the model with these tensors.

    Args:
        config: its config.json, for the widths that activations depend on.
        sizes: elements of each tensor, by its name in the files.

    Raises:
        UserError: config.json lacks a width.
    """
    assumed = build_shape(str(config.get("model_type", "")), Family(), config)
    layers: dict[int, dict[str, int]] = defaultdict(dict)
    ends: dict[str, int] = {}
    for name, size in sizes.items():
        numbered = re.search(r"\.(\d+)\.", name)
        if numbered:
            kind = "attention" if "att" in name else "norm" if "norm" in name or "ln_" in name else "mlp"
            layers[int(numbered[1])][f"{kind}.{name}"] = size
        else:
            found = [(_EMBEDDINGS, "embeddings"), (_POSITIONS, "positions"), (_HEAD, "head")]
            end = next((end for pattern, end in found if pattern.search(name)), "norm")
            ends[end] = ends.get(end, 0) + size
    there = [Layer(like.attention, like.mlp, layers[i]) for i, like in enumerate(assumed.layers) if i in layers]
    return ModelShape(
        assumed.family,
        assumed.structure,
        assumed.vocab_size,
        assumed.hidden_size,
        "head" not in ends,
        tuple(there),
        {"embeddings": 0, **ends},
        assumed.activation,
        0.0,
    )
