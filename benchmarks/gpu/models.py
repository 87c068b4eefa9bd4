"""Models with random weights, made from the shapes of real ones, in a folder that is in memory."""

import json
from pathlib import Path
from typing import Any, Final

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from benchmarks.gpu.part import Setting
from sft.sizing.model_shape import ModelShape, model_shape


def _qwen2(hidden: int, layers: int, heads: int, middle: int) -> dict[str, Any]:
    return {
        **{"model_type": "qwen2", "hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": heads},
        **{"num_key_value_heads": 2, "intermediate_size": middle, "vocab_size": 151936, "tie_word_embeddings": True},
        "max_position_embeddings": 32768,
    }


SHAPES: Final[dict[str, dict[str, Any]]] = {
    "Qwen2.5 0.5B": _qwen2(896, 24, 14, 4864),
    "Qwen2.5 1.5B": _qwen2(1536, 28, 12, 8960),
    "Llama 8B, 8 of 32 layers": {
        **{"model_type": "llama", "hidden_size": 4096, "num_hidden_layers": 8, "num_attention_heads": 32},
        **{"num_key_value_heads": 8, "intermediate_size": 14336, "vocab_size": 128256, "tie_word_embeddings": False},
        "max_position_embeddings": 32768,
    },
}
"""Of the models' own config.json."""

_TINY = {
    **{"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2},
    **{"intermediate_size": 96, "vocab_size": 128, "max_position_embeddings": 32768},
}
_WIDE = {"hidden_size": 256, "intermediate_size": 512, "vocab_size": 1024}
"""Heads of 64, so that a GPU computes with FlashAttention."""
_EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": None}
TINY: Final[dict[str, dict[str, Any]]] = {
    "Llama": {"model_type": "llama", **_TINY},
    "Qwen3": {"model_type": "qwen3", "head_dim": 16, **_TINY},
    "Mixtral": {"model_type": "mixtral", **_EXPERTS, **_TINY},
}


def content_of(setting: Setting, name: str) -> dict[str, Any]:
    """The config.json of a model by name; a small run has a tiny one in the place of each large one."""
    if name in SHAPES:
        content = SHAPES[name]
        return {**content, **_TINY} if setting.small else content
    content = TINY[name]
    wide = {**_WIDE, "head_dim": 64} if "head_dim" in content else _WIDE
    return content if setting.small else {**content, **wide}


def shape_of(setting: Setting, name: str) -> ModelShape:
    return model_shape(content_of(setting, name))


def folder_of(setting: Setting, name: str) -> Path:
    """The model's folder; its weights are drawn on the device when it is first asked for, and kept for other parts."""
    folder = setting.folder / "".join(c if c.isalnum() else "-" for c in name)
    if not (folder / "config.json").is_file():
        content = content_of(setting, name)
        torch.manual_seed(0)
        with torch.device(setting.device):
            model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**content), dtype=torch.bfloat16)
        unfinished = folder.with_suffix(".unfinished")
        model.save_pretrained(unfinished)
        # transformers may write more than was given: exactly this is what the forecasts read.
        written = json.loads((unfinished / "config.json").read_text())
        (unfinished / "config.json").write_text(json.dumps(written | content))
        del model
        if setting.on_gpu:
            torch.cuda.empty_cache()
        unfinished.rename(folder)
    return folder
