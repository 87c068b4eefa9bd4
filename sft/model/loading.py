"""Loads a causal language model from a Hugging Face folder or Hub id, whole or straight into ZeRO-3 shards."""

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.integrations.deepspeed import HfDeepSpeedConfig

from sft.config import ModelConfig
from sft.data.rendering.chat_template import load_tokenizer, loading_reason
from sft.errors import UserError
from sft.model.attention import PACKED_ATTENTION
from sft.model_sizes import check_sizes
from sft.small_files import read_small_json


def load_model(
    model: ModelConfig,
    path: str,
    dtype: torch.dtype,
    zero_config: dict[str, Any] | None = None,
    attention: str | None = PACKED_ATTENTION,
) -> Any:
    """The model at `path`, ready for packed rows, or for rows of one example.

    Args:
        model: says whether code that comes with the model may run.
        path: a folder or Hub id; that of the config, or the model of the stage before.
        dtype: what the parameters are loaded in.
        zero_config: DeepSpeed's config, where the model is to be partitioned while it is loaded (`zero.Init`).
        attention: the implementation; None leaves the choice to transformers.

    Raises:
        UserError: there are no weights at `path`, or they are not of a causal language model.
    """
    check_model_folder(path)
    # transformers finds this object through a weak reference: it must live until from_pretrained has returned.
    partitioned = HfDeepSpeedConfig(zero_config) if zero_config else None
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            path,
            dtype=dtype,
            attn_implementation=attention,
            trust_remote_code=model.trust_remote_code,
            use_safetensors=True,
        )
    except (OSError, ValueError) as error:
        reason = loading_reason(error, "trust_remote_code")
        raise UserError(f"model: {path} cannot be loaded as a causal language model: {reason}") from error
    finally:
        del partitioned
    return loaded


def check_model(model: ModelConfig) -> None:
    """Refuse a model that cannot be trained with its tokenizer, before any machine is held for it.

    Raises:
        UserError: config or weights are missing, or the tokenizer has more tokens than the model has embeddings.
    """
    check_model_folder(model.path)
    tokenizer: Any = load_tokenizer(model)
    try:
        config = AutoConfig.from_pretrained(model.path, trust_remote_code=model.trust_remote_code)
    except (OSError, ValueError) as error:
        reason = loading_reason(error, "trust_remote_code")
        raise UserError(f"model: the config of {model.path} cannot be read: {reason}") from error
    num_embeddings = config.get_text_config().vocab_size
    if len(tokenizer) > num_embeddings:
        raise UserError(
            f"model: the tokenizer of {model.tokenizer or model.path} has {len(tokenizer):,} tokens, but the model has "
            f"{num_embeddings:,} embeddings. Use the model's own tokenizer, or a model with a larger vocabulary."
        )


def check_model_folder(path: str) -> None:
    """Refuse a local folder that holds no model. A Hub id passes.

    Raises:
        UserError: config or weights are missing.
    """
    folder = Path(path).expanduser()
    if not folder.is_dir():
        if path.startswith((".", "/", "~")) or path.count("/") != 1:
            raise UserError(f"model: there is no folder {folder}. Correct model.path, or name a Hub id.")
        return
    there = ", ".join(sorted(p.name for p in folder.iterdir())[:12]) or "nothing"
    if not (folder / "config.json").is_file():
        raise UserError(f"model: {folder} has no config.json; it holds {there}")
    config = read_small_json(folder / "config.json", "the model's config")
    if not isinstance(config, dict):
        raise UserError(f"model: {folder}/config.json is not the config of a model")
    check_sizes(config, folder / "config.json")
    if not any(folder.glob("*.safetensors")):
        raise UserError(
            f"model: {folder} has no weights (*.safetensors); it holds {there}. "
            "Download the whole model; weights in other formats must be saved as safetensors first."
        )
