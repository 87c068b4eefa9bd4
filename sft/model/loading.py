"""Loads a causal language model from a Hugging Face folder or Hub id, whole or straight into ZeRO-3 shards.

Before any weight is read, the files are compared with the model's class; a mismatch is refused, not filled in.
"""

from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import GenerationConfig
from transformers.integrations.deepspeed import HfDeepSpeedConfig

from sft.absolute_paths import near_it
from sft.config import ModelConfig
from sft.data.rendering.chat_template import RAISED_BY_CODE, load_tokenizer, loading_reason
from sft.errors import UserError
from sft.model.architecture import (
    UnreadableConfigError,
    auto_class,
    build_without_weights,
    cannot_be_loaded,
    missing_package,
    read_config,
)
from sft.model.attention import PACKED_ATTENTION
from sft.model.loaded_dtypes import check_shards, loaded_dtypes, loading_into_shards
from sft.model.own_weights import Sources, find_sources, leave_out, read_own_parts
from sft.model.positions import check_positions
from sft.model.saved_tensors import saved_groups
from sft.model.text_path import frozen_parameters
from sft.model.weight_check import check_weights
from sft.model.weight_files import StoredTensor, finder, read_headers, weight_files
from sft.model_sizes import check_sizes
from sft.progress import Tell
from sft.small_files import read_small_json

_CPU = torch.device("cpu")


def load_model(
    model: ModelConfig,
    path: str,
    dtype: torch.dtype,
    place: dict[str, Any] | torch.device = _CPU,
    attention: str | None = PACKED_ATTENTION,
    awaits_state: bool = False,
    tell: Tell = lambda: None,
) -> Any:
    """The model at `path`, ready for packed rows, or for rows of one example.

    Parameters that text does not go through have `requires_grad` off. If the model is partitioned, each rank reads its
    own part of the weights (see `sft.model.own_weights`).

    Args:
        model: says whether code that comes with the model may run.
        path: a folder or Hub id: that of the config, or the model of the stage before.
        dtype: the dtype to load the parameters in.
        place: where each tensor goes when it is read: whole onto a device, or into the partitioned model (`zero.Init`)
            of this DeepSpeed config.
        attention: the implementation; None leaves the choice to transformers.
        awaits_state: whether a checkpoint will bring the trained parameters: they are not read then, and hold NaN.
        tell: called after each parameter of which a part was read; all ranks call it equally often.

    Raises:
        UserError: there are no weights at `path`, or they are not those of a causal language model.
    """
    check_model_folder(path)
    config = read_config(model, path)
    config.dtype = dtype
    skeleton, frozen, stored = _skeleton(model, config, path, download=True)
    dtypes = loaded_dtypes(skeleton, dtype)
    is_split = isinstance(place, dict)
    is_read_whole = not is_split and not awaits_state
    sources = Sources() if is_read_whole else find_sources(skeleton, stored, frozen, awaits_state, is_split)
    placed: dict[str, Any] = {} if is_split else {"device_map": {"": place}}
    # transformers finds this object through a weak reference: it must live until from_pretrained has returned.
    partitioned = HfDeepSpeedConfig(place) if is_split else None
    try:
        with leave_out(sources.left_out), loading_into_shards(dtypes) as unread:
            placed["attn_implementation"] = _only_of_text(config, attention)
            loaded = _load(model, config, path, dtype, is_split, **placed)
    finally:
        del partitioned
    if is_split:
        check_shards(path, loaded, dtypes, unread)
    read_own_parts(loaded, sources.own, tell)
    # Under ZeRO-3 transformers keeps all known conversions, not only those that these files needed.
    loaded._weight_conversions = skeleton._weight_conversions
    for name in frozen:
        loaded.get_parameter(name).requires_grad_(False)
    return loaded


def load_without_weights(model: ModelConfig, path: str, dtype: torch.dtype) -> Any:
    """The model at `path` on torch's meta device, compared with its files; what is not trained has `requires_grad` off.

    Its config is that of a model loaded in `dtype`.

    Raises:
        UserError: as `load_model`.
    """
    check_model_folder(path)
    config = read_config(model, path)
    config.dtype = dtype
    skeleton, frozen, _ = _skeleton(model, config, path, download=True)
    for name, parameter in skeleton.named_parameters():
        parameter.requires_grad_(name not in frozen)
    return skeleton


def load_plain_model(model: ModelConfig, path: str, dtype: torch.dtype) -> Any:
    """The model at `path` as transformers loads it, for generation.

    Raises:
        UserError: it cannot be loaded.
    """
    return _load(model, read_config(model, path), path, dtype)


def check_model(model: ModelConfig, max_len_tokens: int | None = None, is_whole: bool = True) -> list[str]:
    """Refuse a model that cannot be trained with its tokenizer, before any machine is held for it.

    Args:
        model: the model.
        max_len_tokens: the longest example.
        is_whole: whether all of it has to be here. If not, missing weights are a note, and a missing tokenizer or a
            config that transformers cannot read here is left to later checks.

    Returns:
        Notes for people, in words.

    Raises:
        UserError: config or weights are missing or do not fit each other, the tokenizer has more tokens than the
            model has embeddings, or the longest example is longer than the model's positions.
    """
    check_model_folder(model.path, is_whole)
    try:
        config = read_config(model, model.path)
    except UnreadableConfigError:
        if is_whole:
            raise
        return []
    if is_whole or _has_tokenizer(model):
        _check_vocabulary(model, config)
    skeleton, _, stored = _skeleton(model, config, model.path, download=False)
    notes = [] if max_len_tokens is None else check_positions(model.path, skeleton, max_len_tokens)
    if not is_whole and not stored:
        notes.append(f"model: the weights of {model.path} are not on this machine. The training needs them.")
    return notes


def _has_tokenizer(model: ModelConfig) -> bool:
    folder = Path(model.tokenizer or model.path).expanduser()
    return any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer_config.json"))


def _check_vocabulary(model: ModelConfig, config: Any) -> None:
    tokenizer: Any = load_tokenizer(model)
    num_embeddings = config.get_text_config().vocab_size
    # Not the number of tokens: a vocabulary may have gaps.
    last, last_id = max(tokenizer.get_vocab().items(), key=lambda entry: entry[1])
    if last_id >= num_embeddings:
        raise UserError(
            f"model: the tokenizer of {model.tokenizer or model.path} has {len(tokenizer):,} tokens, the last of them "
            f"{last!r} with the id {last_id:,}, but the model has {num_embeddings:,} embeddings. Use the model's own "
            "tokenizer, or a model with a larger vocabulary."
        )


def check_model_folder(path: str, is_whole: bool = True) -> None:
    """Refuse a local folder that holds no model. A Hub id passes.

    Args:
        path: the folder or id.
        is_whole: whether weights have to be there. If not, a config alone is enough, also as a file of any name.

    Raises:
        UserError: config or weights are missing.
    """
    folder = Path(path).expanduser()
    if not is_whole and folder.is_file():
        return
    if not folder.is_dir():
        if path.startswith((".", "/", "~")) or path.count("/") != 1:
            raise UserError(
                f"model: there is no folder {folder}{near_it(folder)}. Correct model.path, or name a Hub id."
            )
        return
    there = ", ".join(sorted(p.name for p in folder.iterdir())[:12]) or "nothing"
    if (folder / "adapter_config.json").is_file():
        raise UserError(
            f"model: {folder} holds an adapter (adapter_config.json), a part of a model. Needed: the whole model. "
            "Merge it with PEFT's `merge_and_unload()` and save the result."
        )
    if not (folder / "config.json").is_file():
        raise UserError(f"model: {folder} has no config.json; it holds {there}")
    config = read_small_json(folder / "config.json", "the model's config")
    if not isinstance(config, dict):
        raise UserError(f"model: {folder}/config.json is not the config of a model")
    check_sizes(config, folder / "config.json")
    _check_generation_config(folder)
    if is_whole and not _files(path, download=False):
        raise UserError(
            f"model: {folder} has no weights (model.safetensors, or model.safetensors.index.json and the files that "
            f"it names); it holds {there}. "
            "Download the whole model; weights in other formats must be saved as safetensors first."
        )


def _check_generation_config(folder: Path) -> None:
    """Refuse a generation config that transformers cannot read: it fails on some, and silently ignores others."""
    file = folder / "generation_config.json"
    if not file.is_file():
        return
    content, reason = read_small_json(file, "the model's generation config"), "it is not a JSON object"
    if isinstance(content, dict):
        try:
            GenerationConfig.from_dict(content)
            return
        except RAISED_BY_CODE as error:
            reason = loading_reason(error, "trust_remote_code")
    raise UserError(
        f"model: {file} is not a generation config: {reason}. Fetch it again, or remove it: the settings for "
        "generation in config.json then apply."
    )


class _Skeleton(NamedTuple):
    model: Any
    """Without weights."""
    frozen: frozenset[str]
    """The names of its parameters that are not trained."""
    stored: dict[str, StoredTensor]
    """The tensors in its files."""


def _skeleton(model: ModelConfig, config: Any, path: str, download: bool) -> _Skeleton:
    """The model without weights.

    It is compared with its files, if those are on this machine or may be fetched.
    """
    skeleton = build_without_weights(model, config, path)
    frozen = frozen_parameters(skeleton)
    files = _files(path, download)
    stored = read_headers(files)
    if files:
        check_weights(path, skeleton, stored)
    elif download:
        raise UserError(f"model: {path} has no weights as safetensors on the Hub. Save it as safetensors first.")
    saved_groups(skeleton)
    return _Skeleton(skeleton, frozen, stored)


def _files(path: str, download: bool) -> list[Path]:
    """The files with the weights, if they are on this machine or may be fetched; a config alone has none."""
    return [] if Path(path).is_file() else weight_files(path, finder(path, download))


def _load(
    model: ModelConfig, config: Any, path: str, dtype: torch.dtype, in_parts: bool = False, **options: Any
) -> Any:
    trusted = model.trust_remote_code
    try:
        return auto_class(config).from_pretrained(
            path, config=config, dtype=dtype, trust_remote_code=trusted, use_safetensors=True, **options
        )
    except ImportError as error:
        raise missing_package(path, error) from error
    except KeyError as error:
        if error.args == (PACKED_ATTENTION,):
            raise UserError(
                f"model: the layers of {path} ({config.model_type}) bring their own attention and cannot take another, "
                "so the examples of a pack cannot be kept apart. Use a model of another family."
            ) from error
        raise cannot_be_loaded(path, config, error) from error
    except (OSError, ValueError, TypeError, AttributeError, IndexError) as error:
        raise cannot_be_loaded(path, config, error, in_parts) from error


def _only_of_text(config: Any, attention: str | None) -> str | dict[str, str] | None:
    """The implementation for the decoder; encoders for images and sound, where no text goes, keep theirs."""
    if attention is None:
        return None
    text = config.get_text_config()
    parts = {name: attention for name in config.sub_configs if getattr(config, name, None) is text}
    return parts if text is not config and parts else attention
