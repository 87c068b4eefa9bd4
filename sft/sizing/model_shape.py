"""Turns a model's config.json into its parameters, tensor by tensor: how many, how large, in which layer.

The count is exact for the families of `sft.sizing.families`. Tensors are those that ZeRO-3 splits, so the experts of a
layer are two tensors (as transformers 5 holds them), and tied embeddings are one.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from sft.errors import UserError
from sft.sizing.families import FAMILIES, Bias, Family

_NAMES = {
    "hidden_size": "n_embd",
    "num_hidden_layers": "n_layer",
    "num_attention_heads": "n_head",
    "max_position_embeddings": "n_positions",
    "hidden_act": "activation_function",
    "num_experts": "num_local_experts",
}
"""The other name of a key: the first ones are GPT-2's."""


class Attention(NamedTuple):
    """Widths of all heads together."""

    query_width: int
    key_width: int
    """The width of the keys, and of the values: smaller than that of the queries with grouped heads."""
    num_heads: int
    num_key_heads: int


class Mlp(NamedTuple):
    """A dense MLP, or experts and an expert that all tokens share."""

    width: int
    """The width of the dense MLP, or of one expert."""
    num_experts: int = 0
    experts_per_token: int = 0
    shared_width: int = 0


@dataclass(frozen=True, slots=True)
class Layer:
    """One decoder layer."""

    attention: Attention
    mlp: Mlp
    tensors: Mapping[str, int]
    """Elements of each tensor, by name, in the order of the forward pass."""

    @property
    def num_parameters(self) -> int:
        """Elements of all tensors."""
        return sum(self.tensors.values())

    @property
    def num_active(self) -> int:
        """Elements that one token is multiplied with: without the experts that it is not sent to."""
        experts = sum(size for name, size in self.tensors.items() if name.startswith("experts."))
        idle = experts * (1 - self.mlp.experts_per_token / self.mlp.num_experts) if self.mlp.num_experts else 0
        return self.num_parameters - round(idle)


@dataclass(frozen=True)
class ModelShape:
    """The sizes of a causal language model."""

    family: str
    structure: Family
    vocab_size: int
    hidden_size: int
    is_tied: bool
    layers: tuple[Layer, ...]
    ends: Mapping[str, int]
    """Tensors outside the layers: `embeddings`, `positions`, `norm`, `head`, `head.bias`."""
    activation: str
    dropout: float
    """Dropout after attention and MLP."""
    num_frozen: int = 0
    """Elements that are held and written but not trained: parts that no text goes through."""

    @property
    def num_held(self) -> int:
        """All elements, trained or not."""
        return self.num_parameters + self.num_frozen

    @cached_property
    def num_parameters(self) -> int:
        """All trained elements; tied ones count once."""
        return sum(layer.num_parameters for layer in self.layers) + sum(self.ends.values())

    @property
    def head_size(self) -> int:
        """Elements of the matrix that makes logits, which may be the embeddings."""
        return self.vocab_size * self.hidden_size

    @property
    def parts(self) -> dict[str, int]:
        """Number of parameters by their role."""
        found = {"embeddings": self.ends["embeddings"] + self.ends.get("positions", 0), "attention": 0, "mlp": 0}
        found |= {"norms": self.ends.get("norm", 0), "head": self.ends.get("head", 0) + self.ends.get("head.bias", 0)}
        for layer in self.layers:
            for name, size in layer.tensors.items():
                kind = name.partition(".")[0]
                found[{"norm": "norms", "attention": "attention"}.get(kind, "mlp")] += size
        return found


def model_shape(config: Mapping[str, Any]) -> ModelShape:
    """The shape of the model that a config.json describes.

    Raises:
        UserError: its family is not known here, or a needed key is missing.
    """
    family = config.get("model_type", "")
    if family not in FAMILIES:
        raise UserError(f"no formula for model_type {family!r}; there are formulas for {', '.join(FAMILIES)}")
    return build_shape(family, FAMILIES[family], config)


def build_shape(family: str, structure: Family, config: Mapping[str, Any]) -> ModelShape:
    """The shape of a model with this structure.

    Raises:
        UserError: a needed key is missing.
    """
    hidden, vocab = _number(config, "hidden_size"), _number(config, "vocab_size")
    layers = tuple(_layer(structure, config, i) for i in range(_number(config, "num_hidden_layers")))
    is_tied = config.get("tie_word_embeddings")
    is_tied = structure.is_tied if is_tied is None else bool(is_tied)
    ends = {"embeddings": vocab * hidden}
    if not structure.has_rotary:
        ends["positions"] = _number(config, "max_position_embeddings") * hidden
    ends["norm"] = _norm_size(structure, hidden)
    if not is_tied:
        ends["head"] = vocab * hidden
    if structure.head_bias:
        ends["head.bias"] = vocab
    activation = _find(config, "hidden_act") or config.get("hidden_activation") or structure.activation
    if not isinstance(activation, str):
        raise UserError(f"config.json: hidden_act: {activation!r}; needed: the name of a function")
    dropout = config.get(structure.dropout_key, structure.dropout) if structure.dropout_key else 0.0
    if not isinstance(dropout, int | float):
        raise UserError(f"config.json: {structure.dropout_key}: {dropout!r}; needed: a number")
    return ModelShape(family, structure, vocab, hidden, is_tied, layers, ends, activation, float(dropout))


def _layer(structure: Family, config: Mapping[str, Any], index: int) -> Layer:
    hidden, heads = _number(config, "hidden_size"), _number(config, "num_attention_heads")
    key_heads = _optional(config, "num_key_value_heads") or heads
    head_dim = _optional(config, "head_dim") or structure.head_dim or hidden // heads
    attention = Attention(heads * head_dim, key_heads * head_dim, heads, key_heads)
    mlp = _mlp(structure, config, index)
    norms = {f"norm.{i}": _norm_size(structure, hidden) for i in range(structure.norms_per_layer)}
    tensors = {
        **_attention_tensors(structure, config, attention, head_dim),
        **(_expert_tensors(hidden, mlp) if mlp.num_experts else _mlp_tensors(structure, config, mlp.width)),
        **norms,
    }
    return Layer(attention, mlp, {name: size for name, size in tensors.items() if size})


def _attention_tensors(
    structure: Family, config: Mapping[str, Any], attention: Attention, head_dim: int
) -> dict[str, int]:
    hidden, query, key = _number(config, "hidden_size"), attention.query_width, attention.key_width
    widths = {"qkv": query + 2 * key} if structure.fuses_qkv else {"query": query, "key": key, "value": key}
    bias = _has(structure.attention_bias, structure, config)
    tensors: dict[str, int] = {}
    for name, width in widths.items():
        tensors |= {f"attention.{name}": hidden * width, f"attention.{name}.bias": width if bias else 0}
    if structure.qk_norm:
        each = (head_dim, head_dim) if structure.qk_norm == "head" else (query, key)
        tensors |= dict(zip(("norm.query", "norm.key"), each, strict=True))
    if structure.norm == "layer" and config.get("qk_layernorm"):  # Phi
        tensors |= {"norm.query": 2 * head_dim, "norm.key": 2 * head_dim}
    output_bias = hidden if _has(structure.output_bias, structure, config) else 0
    return tensors | {"attention.output": query * hidden, "attention.output.bias": output_bias}


def _mlp(structure: Family, config: Mapping[str, Any], index: int) -> Mlp:
    width = _optional(config, "intermediate_size") or _optional(config, "n_inner")
    width = width or 4 * _number(config, "hidden_size")
    if not structure.has_experts:
        return Mlp(width)
    is_sparse = (index + 1) % (_optional(config, "decoder_sparse_step") or 1) == 0
    if not is_sparse or index in (config.get("mlp_only_layers") or ()):
        return Mlp(width)
    shared = _number(config, "shared_expert_intermediate_size") if structure.has_shared_expert else 0
    return Mlp(
        _number(config, structure.expert_width_key),
        _number(config, "num_experts"),
        _number(config, "num_experts_per_tok"),
        shared,
    )


def _mlp_tensors(structure: Family, config: Mapping[str, Any], width: int) -> dict[str, int]:
    hidden = _number(config, "hidden_size")
    bias = _has(structure.mlp_bias, structure, config)
    sizes = {"gate": hidden * width} if structure.has_gate else {}
    if structure.fuses_qkv and structure.has_gate:
        sizes = {"gate_up": 2 * hidden * width}  # Phi-3 fuses both
    else:
        sizes["up"] = hidden * width
    tensors: dict[str, int] = {}
    for name, size in sizes.items():
        tensors |= {f"mlp.{name}": size, f"mlp.{name}.bias": size // hidden if bias else 0}
    return tensors | {"mlp.down": width * hidden, "mlp.down.bias": hidden if bias else 0}


def _expert_tensors(hidden: int, mlp: Mlp) -> dict[str, int]:
    each = hidden * mlp.width
    tensors = {
        "mlp.router": mlp.num_experts * hidden,
        "experts.gate_up": 2 * mlp.num_experts * each,
        "experts.down": mlp.num_experts * each,
    }
    if mlp.shared_width:
        shared = hidden * mlp.shared_width
        tensors |= {"mlp.shared_gate": hidden, "mlp.gate": shared, "mlp.up": shared, "mlp.down": shared}
    return tensors


def _norm_size(structure: Family, width: int) -> int:
    return {"rms": width, "rms_float32": width, "layer": 2 * width, "layer_float32": 0}[structure.norm]


def _has(bias: Bias, structure: Family, config: Mapping[str, Any]) -> bool:
    return bool(config.get(bias, structure.is_biased)) if isinstance(bias, str) else bias


def _find(config: Mapping[str, Any], key: str) -> Any:
    return config.get(key, config.get(_NAMES.get(key, key)))


def _optional(config: Mapping[str, Any], key: str) -> int | None:
    value = config.get(key)
    if value is not None and not isinstance(value, int):
        raise UserError(f"config.json: {key}: {value!r}; needed: one number for all layers")
    return value


def _number(config: Mapping[str, Any], key: str) -> int:
    value = _find(config, key)
    if not isinstance(value, int):
        raise UserError(f"config.json has no {key}, which is needed for the size of the model")
    return value
