"""Everything in a model's folder except the weights, so that it loads as it was trained, and stops.

Config, code and generation config are what transformers would save. The tokens that ended the answers in training are
added to those that end generation, and the tokenizer says so too. Its chat template also renders what the original has
no form for, as training did (`saved_template`). The rest of the generation config is copied from the original, even
settings that transformers would not save. Files of a processor are copied.
"""

import copy
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import StateDictSplit
from transformers.dynamic_module_utils import custom_object_save
from transformers.utils import IMAGE_PROCESSOR_NAME, PROCESSOR_NAME, VIDEO_PROCESSOR_NAME

from sft.atomic_files import write_json
from sft.data.rendering.saved_template import saved_template
from sft.model.weight_files import INDEX, finder

GENERATION_CONFIG = "generation_config.json"
_COPIED = (IMAGE_PROCESSOR_NAME, PROCESSOR_NAME, VIDEO_PROCESSOR_NAME)
"""Audio uses them too. The processor's chat template is the tokenizer's, which is saved where both look for it."""


def write_model_folder(
    model: Any,
    tokenizer: Any,
    folder: Path,
    dtype: torch.dtype,
    stop_ids: Sequence[int],
    split: StateDictSplit,
) -> None:
    """Write the files that belong to the weights of `split` into `folder`.

    Args:
        model: the trained model.
        tokenizer: that of the training; it is not changed.
        folder: where the weights are.
        dtype: of the trained parameters.
        stop_ids: the tokens that end an answer in training, the most frequent one first.
        split: which file holds which tensor.
    """
    find = finder(model.name_or_path, download=True)
    stopping = _stopping(tokenizer, stop_ids)
    _write_config(model, folder, dtype, None if stopping is tokenizer else stopping.eos_token_id)
    _write_generation_config(model, stopping, folder, stop_ids, find(GENERATION_CONFIG))
    saved = copy.deepcopy(stopping)
    saved.chat_template = saved_template(tokenizer)
    # Whether the Hub could be asked when it was loaded is no property of a tokenizer.
    saved.init_kwargs.pop("local_files_only", None)
    saved.save_pretrained(folder)
    for name in _COPIED:
        if original := find(name):
            shutil.copyfile(original, folder / name)
    if split.is_sharded:
        write_json(folder / INDEX, {"metadata": split.metadata, "weight_map": split.tensor_to_filename})


def _stopping(tokenizer: Any, stop_ids: Sequence[int]) -> Any:
    """The tokenizer, with an end-of-text token that ended answers in training."""
    # With a new token, a template that writes `eos_token` would write something else.
    if not stop_ids or tokenizer.eos_token_id in stop_ids or "eos_token" in (tokenizer.chat_template or ""):
        return tokenizer
    stopping = copy.deepcopy(tokenizer)
    stopping.eos_token = tokenizer.convert_ids_to_tokens(stop_ids[0])
    return stopping


def _write_config(model: Any, folder: Path, dtype: torch.dtype, eos_token_id: int | None) -> None:
    config = copy.deepcopy(model.config)
    config.dtype = dtype
    config.architectures = [type(model).__name__]
    # These are in the generation config; transformers does not save them twice.
    for name in config._get_generation_parameters():
        delattr(config, name)
    for part in {id(each): each for each in (config, config.get_text_config())}.values():
        if eos_token_id is not None and isinstance(getattr(part, "eos_token_id", None), int):
            part.eos_token_id = eos_token_id
    if model.is_remote_code():
        custom_object_save(model, folder, config=config)
    config.save_pretrained(folder)


def _write_generation_config(
    model: Any, tokenizer: Any, folder: Path, stop_ids: Sequence[int], original: Path | None
) -> None:
    content = _original_settings(model, original)
    old = content.get("eos_token_id")
    ends = list(old) if isinstance(old, list) else [] if old is None else [old]
    # The tokenizer's own end-of-text token always ends generation.
    end_of_text = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    ends += [i for i in dict.fromkeys([*stop_ids, *end_of_text]) if i not in ends]
    if ends:
        content["eos_token_id"] = ends
    if content.get("pad_token_id") is None and tokenizer.pad_token_id is not None:
        content["pad_token_id"] = tokenizer.pad_token_id
    write_json(folder / GENERATION_CONFIG, content)


def _original_settings(model: Any, original: Path | None) -> dict[str, Any]:
    """The settings of the file; without a readable one, what transformers derives from the config."""
    try:
        content = json.loads(original.read_text(encoding="utf-8")) if original else None
    except ValueError:
        content = None
    if isinstance(content, dict):
        return content
    made = model.generation_config
    text = made.to_json_string(use_diff=True, keys_to_pop=["compile_config"]) if made is not None else "{}"
    return dict(json.loads(text))
