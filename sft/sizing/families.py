"""How the model families of transformers are built, as far as their size depends on it: one row each.

`model_type` of config.json names the family. A row lists only what differs from Llama: root-mean-square norms before
attention and MLP, a gated MLP, separate projections, no biases.
"""

from typing import Literal, NamedTuple

Norm = Literal["rms", "rms_float32", "layer", "layer_float32"]
"""The root-mean-square norm with its weight applied in the model's dtype, or in float32; torch's own layer norm; the
same in float32 without a weight."""

Bias = bool | str
"""Whether there is one, or the key of config.json that says so."""


class Family(NamedTuple):
    """What distinguishes a family's layers and ends."""

    norm: Norm = "rms"
    norms_per_layer: int = 2
    norms_are_behind: bool = False
    """Attention and MLP read the residual stream itself; their outputs are normalised."""
    attention_bias: Bias = False
    """Of the query, key and value projections."""
    output_bias: Bias = False
    """Of the projection after the attention."""
    mlp_bias: Bias = False
    is_biased: bool = False
    """The value of a bias key that is missing in config.json."""
    head_bias: bool = False
    has_gate: bool = True
    fuses_qkv: bool = False
    has_rotary: bool = True
    qk_norm: Literal["head", "width"] | None = None
    """Norms of queries and keys: one weight for a head, or for all heads together."""
    has_parallel_mlp: bool = False
    """Attention and MLP read the same residual stream, and both results are added to it."""
    has_experts: bool = False
    """A mixture of experts instead of the MLP."""
    expert_width_key: str = "intermediate_size"
    has_shared_expert: bool = False
    head_dim: int | None = None
    """The default if config.json does not say it. None: the hidden width divided by the number of heads."""
    is_tied: bool = False
    """The default if config.json does not say it."""
    dropout_key: str | None = None
    """The key of the dropout after attention and MLP."""
    dropout: float = 0.0
    """The default if config.json does not say it."""
    activation: str = "silu"
    """The default if config.json does not say it."""


_GPT2 = Family(
    norm="layer",
    attention_bias=True,
    output_bias=True,
    mlp_bias=True,
    has_gate=False,
    fuses_qkv=True,
    has_rotary=False,
    is_tied=True,
    dropout_key="resid_pdrop",
    dropout=0.1,
    activation="gelu_new",
)

FAMILIES: dict[str, Family] = {
    "llama": Family(attention_bias="attention_bias", output_bias="attention_bias", mlp_bias="mlp_bias"),
    "mistral": Family(),
    "qwen2": Family(attention_bias=True),
    "qwen3": Family(attention_bias="attention_bias", output_bias="attention_bias", qk_norm="head", head_dim=128),
    "gemma": Family(
        norm="rms_float32",
        attention_bias="attention_bias",
        output_bias="attention_bias",
        head_dim=256,
        is_tied=True,
        activation="gelu_pytorch_tanh",
    ),
    "gemma2": Family(
        norm="rms_float32",
        norms_per_layer=4,
        attention_bias="attention_bias",
        output_bias="attention_bias",
        head_dim=256,
        is_tied=True,
        activation="gelu_pytorch_tanh",
    ),
    "gemma3_text": Family(
        norm="rms_float32",
        norms_per_layer=4,
        attention_bias="attention_bias",
        output_bias="attention_bias",
        qk_norm="head",
        head_dim=256,
        is_tied=True,
        activation="gelu_pytorch_tanh",
    ),
    "phi": Family(
        norm="layer",
        norms_per_layer=1,
        attention_bias=True,
        output_bias=True,
        mlp_bias=True,
        head_bias=True,
        has_gate=False,
        has_parallel_mlp=True,
        dropout_key="resid_pdrop",
        activation="gelu_new",
    ),
    "phi3": Family(fuses_qkv=True, dropout_key="resid_pdrop"),
    "gpt2": _GPT2,
    "gpt_neox": _GPT2._replace(
        attention_bias="attention_bias",
        output_bias="attention_bias",
        is_biased=True,
        has_rotary=True,
        has_parallel_mlp=True,
        is_tied=False,
        dropout_key="hidden_dropout",
        dropout=0.0,
        activation="gelu",
    ),
    "olmo": Family(norm="layer_float32", attention_bias="attention_bias", output_bias="attention_bias"),
    "olmo2": Family(
        norm="rms_float32",
        norms_are_behind=True,
        attention_bias="attention_bias",
        output_bias="attention_bias",
        qk_norm="width",
    ),
    "smollm3": Family(attention_bias="attention_bias", output_bias="attention_bias", mlp_bias="mlp_bias", is_tied=True),
    "granite": Family(attention_bias="attention_bias", output_bias="attention_bias", mlp_bias="mlp_bias"),
    "starcoder2": Family(
        norm="layer",
        attention_bias="use_bias",
        output_bias="use_bias",
        mlp_bias="use_bias",
        is_biased=True,
        has_gate=False,
        is_tied=True,
        dropout_key="residual_dropout",
        activation="gelu_pytorch_tanh",
    ),
    "mixtral": Family(has_experts=True),
    "qwen2_moe": Family(
        attention_bias="qkv_bias",
        is_biased=True,
        has_experts=True,
        expert_width_key="moe_intermediate_size",
        has_shared_expert=True,
    ),
    "qwen3_moe": Family(
        attention_bias="attention_bias",
        output_bias="attention_bias",
        qk_norm="head",
        has_experts=True,
        expert_width_key="moe_intermediate_size",
    ),
    "olmoe": Family(attention_bias="attention_bias", output_bias="attention_bias", qk_norm="width", has_experts=True),
}
