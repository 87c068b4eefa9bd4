"""What autograd keeps of a layer for its backward pass, and what the backward pass needs besides: bytes a token.

Counted tensor by tensor as transformers' layers run, with or without fused kernels (`sft.model.fused`); Korthikanti et
al. 2022 ("Reducing Activation Recomputation in Large Transformer Models", section 4) count the same for GPT, with
attention that keeps its scores. Ours does not: FlashAttention keeps a number for each head (Dao et al. 2022).
"""

from typing import NamedTuple

from sft.model.split_heads import key_repeats
from sft.sizing.families import Norm
from sft.sizing.model_shape import Layer, ModelShape

_FLOAT32 = 4
_PLAIN_STEPS = {"gelu_new": 5, "gelu_fast": 5}
"""How many tensors of the MLP's width an activation in several steps keeps. An activation in one kernel keeps its
input, and the next layer keeps its output."""
_GELU_NEW_BACKWARD = 2


class Numbers(NamedTuple):
    """How numbers are stored while a layer runs."""

    num_bytes: int
    """Bytes of one number, in the dtype that the model computes in."""
    on_gpu: bool
    has_kernels: bool = False
    """Whether norms and gated MLPs are computed by fused kernels, which keep only their inputs."""
    has_dropout: bool = False
    """Whether the dropout of the model's config is drawn."""
    num_parts: int = 1
    """Workers that share a row: each has a part of its tokens, and a share of the heads of all."""


def kept_per_token(shape: ModelShape, layer: Layer, numbers: Numbers) -> int:
    """Bytes that one layer keeps for each token until its backward pass."""
    structure, hidden, b = shape.structure, shape.hidden_size, numbers.num_bytes
    norms = structure.norms_per_layer * norm_per_token(structure.norm, hidden, numbers)
    inputs = 2  # of attention and MLP: outputs of norms, or the residual stream
    if structure.has_parallel_mlp:
        # The norms read the same stream.
        norms = norm_per_token(structure.norm, hidden, numbers)
        inputs = structure.norms_per_layer
    dropout = 2 * hidden * (1 if numbers.on_gpu else b) if shape.dropout and numbers.has_dropout else 0
    attention, mlp = _attention_per_token(shape, layer, numbers), _mlp_per_token(shape, layer, numbers)
    return norms + inputs * b * hidden + attention + mlp + dropout


def norm_per_token(norm: Norm, width: int, numbers: Numbers) -> int:
    """Bytes that a norm over `width` keeps, without its output."""
    statistics, num_bytes = 2 * _FLOAT32, numbers.num_bytes
    if numbers.has_kernels and norm.startswith("rms"):
        return num_bytes * width + _FLOAT32
    return {
        # The input in float32, and the normalised input that its weight is multiplied with.
        "rms": (_FLOAT32 + num_bytes) * width,
        "rms_float32": 2 * _FLOAT32 * width,
        "layer": num_bytes * width,
        "layer_float32": _FLOAT32 * width,
    }[norm] + statistics


def backward_per_token(shape: ModelShape, layer: Layer, numbers: Numbers) -> int:
    """Bytes of gradients that the backward pass of a layer holds at the same time, besides what is kept."""
    hidden, mlp, b = shape.hidden_size, layer.mlp, numbers.num_bytes
    # The gradient of a root-mean-square norm is computed in float32, in four steps, if no kernel makes one of them.
    in_norm = (4 if shape.structure.norm.startswith("rms") else 3) * _FLOAT32 * hidden
    if numbers.has_kernels and shape.structure.norm.startswith("rms"):
        in_norm = 2 * b * hidden
    if mlp.num_experts:
        in_mlp = mlp.experts_per_token * (2 * mlp.width + hidden)
    elif shape.structure.has_gate:
        in_mlp = 2 * mlp.width
    else:
        in_mlp = (_GELU_NEW_BACKWARD if shape.activation in _PLAIN_STEPS else 1) * mlp.width
    # Gradients of attention's output, queries, keys and values, and one of them as it is sent and received.
    in_exchange = b * (sum(exchanged_widths(layer, numbers.num_parts)) + 2 * layer.attention.query_width)
    return max(in_norm, b * (hidden + in_mlp), in_exchange if numbers.num_parts > 1 else 0)


def exchanged_widths(layer: Layer, num_parts: int) -> tuple[int, int, int, int]:
    """Numbers of each token in queries, keys, values and outputs that workers exchange who share a row.

    Keys and values are repeated where there are fewer heads of them than workers (see `sft.model.split_heads`).
    """
    query, key, num_heads, num_key_heads = layer.attention
    keys = key * (key_repeats(num_heads, num_key_heads, num_parts) or 1)
    return query, keys, keys, query


def _attention_per_token(shape: ModelShape, layer: Layer, numbers: Numbers) -> int:
    structure, b = shape.structure, numbers.num_bytes
    query, key, num_heads, num_key_heads = layer.attention
    is_split = numbers.num_parts > 1
    kept = b * sum(exchanged_widths(layer, numbers.num_parts)[:3])  # queries, keys, values
    if structure.fuses_qkv and structure.has_rotary and not is_split:
        kept += b * (query + key)  # values are a view of all three, which stay as they were before the rotation
    # The output, which the next projection keeps too: a copy where it was exchanged, or joined from segments on a CPU.
    kept += b * query * (1 if numbers.on_gpu and not is_split else 2)
    if "norm.query" in layer.tensors:
        kept += norm_per_token(structure.norm, query + key, numbers) + _FLOAT32 * (num_heads + num_key_heads)
    return kept + _FLOAT32 * num_heads


def _mlp_per_token(shape: ModelShape, layer: Layer, numbers: Numbers) -> int:
    mlp, hidden, num_bytes = layer.mlp, shape.hidden_size, numbers.num_bytes
    # Gate, up, activated gate and their product. A kernel computes the activated gate again.
    gated = 3 if numbers.has_kernels else 4
    if not mlp.num_experts:
        # Or the up projection and its activation.
        steps = gated if shape.structure.has_gate else _PLAIN_STEPS.get(shape.activation, 2)
        return steps * num_bytes * mlp.width
    # Each of a token's experts has a copy of it, and its answer is kept to be weighted.
    routed = mlp.experts_per_token * num_bytes * (gated * mlp.width + 2 * hidden)
    router = mlp.num_experts * (num_bytes + 2 * _FLOAT32)
    shared = num_bytes * (gated * mlp.shared_width + hidden) if mlp.shared_width else 0
    return routed + router + shared
