"""Folders of tiny models with random weights of any family, with the tokenizer of another folder."""

import shutil
from pathlib import Path
from typing import Any

from transformers import CONFIG_MAPPING, AutoConfig

from sft.model.tiny_model import tiny_config, tiny_model


def write_tiny(folder: Path, family: str, tokenizer: Path, **given: Any) -> Path:
    """A model that `from_pretrained` loads; its vocabulary is that of the tokenizer."""
    shutil.copytree(tokenizer, folder, ignore=shutil.ignore_patterns("*.safetensors", "config.json"))
    config = tiny_config(CONFIG_MAPPING[family](**given))
    config.vocab_size = AutoConfig.from_pretrained(tokenizer).vocab_size
    tiny_model(config, None).save_pretrained(folder)
    return folder
