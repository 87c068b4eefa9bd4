"""Small models of every family that the sizing has a formula for, as the content of their config.json."""

from typing import Any

_SMALL = {"vocab_size": 512, "hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 8}
_GATED = {**_SMALL, "intermediate_size": 384, "num_key_value_heads": 4}
_EXPERTS = {**_GATED, "num_experts_per_tok": 2, "sliding_window": None}

SMALL_MODELS: dict[str, dict[str, Any]] = {
    "llama": _GATED,
    "mistral": {**_GATED, "head_dim": 24, "sliding_window": None},
    "qwen2": _GATED,
    "qwen3": {**_GATED, "head_dim": 24},
    "gemma": {**_GATED, "head_dim": 24},
    "gemma2": {**_GATED, "head_dim": 24},
    "gemma3_text": {**_GATED, "head_dim": 24, "sliding_window": 4096},
    "phi": _GATED,
    "phi3": {**_GATED, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2},
    "gpt2": {"vocab_size": 512, "n_embd": 128, "n_layer": 2, "n_head": 8, "n_positions": 600},
    "gpt_neox": {**_SMALL, "intermediate_size": 512},
    "olmo": {**_GATED, "eos_token_id": 2},
    "olmo2": {**_GATED, "eos_token_id": 2},
    "smollm3": {**_GATED, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2},
    "granite": _GATED,
    "starcoder2": {**_GATED, "sliding_window": None, "bos_token_id": 1, "eos_token_id": 2},
    "mixtral": {**_EXPERTS, "num_local_experts": 8},
    "qwen2_moe": {**_EXPERTS, "num_experts": 8, "moe_intermediate_size": 96, "shared_expert_intermediate_size": 192},
    "qwen3_moe": {**_EXPERTS, "head_dim": 24, "num_experts": 8, "moe_intermediate_size": 96},
    "olmoe": {**_EXPERTS, "num_experts": 8, "eos_token_id": 2},
}

VARIANTS: dict[str, dict[str, Any]] = {
    "llama with every bias": {"model_type": "llama", **_GATED, "attention_bias": True, "mlp_bias": True},
    "llama, tied": {"model_type": "llama", **_GATED, "tie_word_embeddings": True},
    "gemma, not tied": {"model_type": "gemma", **_GATED, "tie_word_embeddings": False},
    "gpt2 with a narrow MLP": {"model_type": "gpt2", **SMALL_MODELS["gpt2"], "n_inner": 256},
    "gpt_neox without biases": {"model_type": "gpt_neox", **SMALL_MODELS["gpt_neox"], "attention_bias": False},
    "starcoder2 without biases": {"model_type": "starcoder2", **SMALL_MODELS["starcoder2"], "use_bias": False},
    "phi with norms of queries and keys": {"model_type": "phi", **_GATED, "qk_layernorm": True},
    "qwen2_moe with dense layers": {
        "model_type": "qwen2_moe",
        **SMALL_MODELS["qwen2_moe"],
        "num_hidden_layers": 4,
        "decoder_sparse_step": 2,
        "mlp_only_layers": [1],
    },
}

LLAMA_8B: dict[str, Any] = {
    "model_type": "llama",
    "vocab_size": 128256,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "tie_word_embeddings": False,
}
LLAMA_70B: dict[str, Any] = {
    **LLAMA_8B,
    "hidden_size": 8192,
    "intermediate_size": 28672,
    "num_hidden_layers": 80,
    "num_attention_heads": 64,
}
SMOLLM2_135M: dict[str, Any] = {
    "model_type": "llama",
    "vocab_size": 49152,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "tie_word_embeddings": True,
}
QWEN_0_5B: dict[str, Any] = {
    "model_type": "qwen2",
    "vocab_size": 151936,
    "hidden_size": 896,
    "intermediate_size": 4864,
    "num_hidden_layers": 24,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "tie_word_embeddings": True,
}


def all_models() -> dict[str, dict[str, Any]]:
    """Name → content of the config.json."""
    return {**{name: {"model_type": name, **content} for name, content in SMALL_MODELS.items()}, **VARIANTS}
