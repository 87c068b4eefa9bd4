"""Tiny checkpoints of real classes with random weights: language models, and models that also see or hear."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMultimodalLM

VOCAB_SIZE = 640
"""Larger than the tests' tokenizers."""

_TEXT = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 512,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "pad_token_id": None,
}
_VISION = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 8,
}
_EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 24}
_QWEN_VISION = {
    "depth": 1,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_heads": 2,
    "patch_size": 8,
    "out_hidden_size": 32,
}

LANGUAGE: Mapping[str, Mapping[str, Any]] = {
    "llama": {**_TEXT, "tie_word_embeddings": True},
    "qwen2": {**_TEXT, "tie_word_embeddings": False},
    "gpt2": {"vocab_size": VOCAB_SIZE, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 512},
    "opt": {
        "vocab_size": VOCAB_SIZE,
        "hidden_size": 32,
        "word_embed_proj_dim": 32,
        "ffn_dim": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 512,
    },
    "phi3": {**_TEXT, "pad_token_id": 0},
    "mixtral": {**_TEXT, "num_local_experts": 4, "num_experts_per_tok": 2},
    "qwen3_moe": {**_TEXT, **_EXPERTS, "num_experts": 4},
    "deepseek_v3": {
        **{name: value for name, value in _TEXT.items() if name != "head_dim"},
        **_EXPERTS,
        "num_key_value_heads": 4,
        "n_routed_experts": 4,
        "n_shared_experts": 1,
        "n_group": 2,
        "topk_group": 1,
        "first_k_dense_replace": 1,
        "q_lora_rank": 8,
        "kv_lora_rank": 8,
        "qk_rope_head_dim": 4,
        "qk_nope_head_dim": 4,
        "v_head_dim": 8,
    },
    # Its router has a bias that is a parameter of float32 and not trained.
    "ernie4_5_moe": {
        **_TEXT,
        "moe_intermediate_size": 24,
        "moe_num_experts": 4,
        "moe_k": 2,
        "moe_num_shared_experts": 1,
        "moe_layer_start_index": 1,
    },
}
"""Config by model_type."""

MULTIMODAL: Mapping[str, Mapping[str, Any]] = {
    "gemma3": {
        "text_config": {**_TEXT, "sliding_window": 16, "pad_token_id": 0},
        "vision_config": {**_VISION, "model_type": "siglip_vision_model", "vision_use_head": False},
        "mm_tokens_per_image": 4,
        "image_token_index": VOCAB_SIZE - 1,
    },
    "mistral3": {
        "text_config": {**_TEXT, "model_type": "mistral"},
        "vision_config": {**_VISION, "model_type": "pixtral", "head_dim": 16},
        "image_token_index": VOCAB_SIZE - 1,
    },
    "llama4": {
        "text_config": {
            **_TEXT,
            "intermediate_size_mlp": 48,
            "num_local_experts": 2,
            "interleave_moe_layer_step": 1,
            "attention_chunk_size": 16,
        },
        "vision_config": {
            **_VISION,
            "vision_output_dim": 32,
            "projector_input_dim": 32,
            "projector_output_dim": 32,
        },
    },
    "qwen2_5_vl": {
        "text_config": {**_TEXT, "rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2]}},
        "vision_config": _QWEN_VISION,
    },
    "qwen3_5": {
        "text_config": {
            **_TEXT,
            "layer_types": ["full_attention", "full_attention"],
            "rope_parameters": {
                "rope_type": "default",
                "mrope_section": [1, 1, 0],
                "partial_rotary_factor": 0.5,
                "mrope_interleaved": True,
            },
        },
        "vision_config": _QWEN_VISION,
    },
    # Layers of its decoder look at pictures, and do nothing where there is none.
    "mllama": {
        "text_config": {**_TEXT, "cross_attention_layers": [1], "num_hidden_layers": 3},
        "vision_config": {
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 1,
            "num_global_layers": 1,
            "attention_heads": 2,
            "image_size": 32,
            "patch_size": 8,
            "vision_output_dim": 64,
            "intermediate_layers_indices": [0],
        },
    },
}
"""Config by model_type, with the sections of each part."""

CHECKPOINTS = {**LANGUAGE, **MULTIMODAL}


def write_checkpoint(model_type: str, folder: Path, dtype: torch.dtype = torch.float32, seed: int = 0) -> Path:
    """Save a model with that config and random weights, all parameters and buffers of floats among them."""
    config = AutoConfig.for_model(model_type, **CHECKPOINTS[model_type])
    auto: Any = AutoModelForMultimodalLM if model_type in MULTIMODAL else AutoModelForCausalLM
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = auto.from_config(config, dtype=torch.float32)
        with torch.no_grad():
            for name, values in model.state_dict().items():
                if values.is_floating_point() and values.ndim < 2:
                    # Norms and biases begin as ones and zeros, by which two could not be told apart.
                    values += 0.1 * torch.randn_like(values)
                assert values.isfinite().all(), name
            for parameter in model.parameters():
                parameter.data = parameter.data.to(dtype if parameter.requires_grad else torch.float32)
    model.save_pretrained(folder)
    return folder
