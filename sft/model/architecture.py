"""Which class of transformers a model is, found from its config; and that class without any weights.

A checkpoint that holds more than text (Gemma 3, Qwen3.5, Mistral 3) is loaded as the class that it names itself, so
that nothing of it is lost; `sft.model.text_path` decides which part of it is trained.
"""

import copy
from collections.abc import Iterator
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMultimodalLM, PreTrainedConfig

from sft.config import ModelConfig
from sft.data.rendering.chat_template import RAISED_BY_CODE, loading_reason
from sft.errors import UserError


class UnreadableConfigError(UserError):
    """A config that the installed transformers cannot read."""


class MissingPackageError(UserError):
    """The model needs a package that is not installed here."""


def read_config(model: ModelConfig, path: str) -> Any:
    """The config of the model at `path`, with its settings for use replaced by the ones needed here.

    Raises:
        UserError: it cannot be read, or belongs to a model that cannot be trained here.
    """
    try:
        config = AutoConfig.from_pretrained(path, trust_remote_code=model.trust_remote_code)
    except ImportError as error:
        raise missing_package(path, error) from error
    except RAISED_BY_CODE as error:
        reason = loading_reason(error, "trust_remote_code")
        raise UnreadableConfigError(f"model: the config of {path} cannot be read: {reason}") from error
    _refuse_quantized(config, path)
    if not model.trust_remote_code:
        _refuse_other_class(config, path)
    _choose_use(config)
    return config


def _choose_use(config: Any) -> None:
    """Set named outputs, and leave the choice of attention to the loading of the model.

    A config may ask for bare tuples, and for kernels that are not installed. Neither is a part of the model.
    """
    for section in _sections(config):
        section.return_dict = True
        section._attn_implementation = None


def _sections(config: Any) -> Iterator[Any]:
    """The config and the configs inside it."""
    yield config
    for name in config.sub_configs:
        if isinstance(inner := getattr(config, name, None), PreTrainedConfig):
            yield from _sections(inner)


def auto_class(config: Any) -> Any:
    """The `AutoModelFor…` whose class for this config is the one that the config itself names.

    If there is none, the one for causal language models comes first: Hugging Face's `generate` uses it.
    """
    causal, multimodal = AutoModelForCausalLM, AutoModelForMultimodalLM
    auto_map = getattr(config, "auto_map", None) or {}
    if causal.__name__ in auto_map:
        return causal
    offers = {auto: _class_names(auto, config) for auto in (causal, multimodal)}
    named = set(getattr(config, "architectures", None) or ())
    for auto, names in offers.items():
        if named & names:
            return auto
    return multimodal if not offers[causal] and offers[multimodal] else causal


def build_without_weights(model: ModelConfig, config: Any, path: str) -> Any:
    """The model of that config on torch's meta device: its modules, names and shapes, without memory.

    Raises:
        UserError: transformers has no such class, or a package that it needs is missing.
    """
    try:
        with torch.device("meta"), torch.random.fork_rng(devices=[]):
            return auto_class(config).from_config(copy.deepcopy(config), trust_remote_code=model.trust_remote_code)
    except ImportError as error:
        raise missing_package(path, error) from error
    except RAISED_BY_CODE as error:
        raise cannot_be_loaded(path, config, error) from error


def cannot_be_loaded(path: str, config: Any, error: BaseException, in_parts: bool = False) -> UserError:
    """The error for a model that transformers refuses, whole or in parts for several workers."""
    if "Unrecognized configuration class" in str(error):
        named = ", ".join(getattr(config, "architectures", None) or ()) or "no class"
        reason = (
            f"transformers has no causal language model for model_type {config.model_type!r} (config.json names "
            f"{named}). Needed: a model that writes text token by token"
        )
    else:
        reason = loading_reason(error, "trust_remote_code")
    if in_parts:
        reason += (
            ". This was in parts, for several workers; one loads it whole (cluster.workers: 1, train.engine: plain)"
        )
    return UserError(f"model: {path} cannot be loaded as a causal language model: {reason}")


def missing_package(path: str, error: ImportError) -> MissingPackageError:
    """The error for a model that needs a package which is not installed."""
    reason = " ".join(str(error).split())[:400]
    return MissingPackageError(
        f"model: {path} needs a package that is not installed here: {reason}\n"
        "Install it where the model is trained, on every node, and start again."
    )


def _class_names(auto: Any, config: Any) -> set[str]:
    try:
        found = auto._model_mapping[type(config)]
    except KeyError:
        return set()
    return {each.__name__ for each in (found if isinstance(found, list | tuple) else (found,))}


def _refuse_other_class(config: Any, path: str) -> None:
    """Without its own code, a model would be read as another class, whose tensors may have the same names."""
    auto_map = getattr(config, "auto_map", None)
    own = auto_map.get(AutoModelForCausalLM.__name__) if isinstance(auto_map, dict) else None
    if not isinstance(own, str):
        return
    name = own.rpartition(".")[2]
    offered = _class_names(AutoModelForCausalLM, config) | _class_names(AutoModelForMultimodalLM, config)
    if name.lower() not in {each.lower() for each in offered}:
        instead = f" ({', '.join(sorted(offered))} of transformers is another class)" if offered else ""
        raise UserError(
            f"model: {path} is a {name}, which comes with code of its own{instead}. It is not run. If you trust "
            "that code: model.trust_remote_code=true"
        )


def _refuse_quantized(config: Any, path: str) -> None:
    sections = (config, config.get_text_config())
    given = [q for section in sections if (q := getattr(section, "quantization_config", None)) is not None]
    if not given:
        return
    fields = given[0] if isinstance(given[0], dict) else given[0].to_dict()
    method = str(getattr(fields.get("quant_method"), "value", fields.get("quant_method", "an unknown method")))
    raise UserError(
        f"model: the weights of {path} are quantized ({method}), and an optimizer cannot update such numbers. "
        "Needed: the same model in bfloat16, float16 or float32; most are published beside the quantized ones. If "
        "there is none, load it with transformers, call its `dequantize()`, and save the result."
    )
