"""The parameters that are counted from a config.json are those of the model that transformers makes of it."""

import json
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from sft.errors import UserError
from sft.sizing.families import FAMILIES
from sft.sizing.measured_shape import shape_from_tensors
from sft.sizing.model_shape import model_shape
from tests.sizing.models import LLAMA_8B, SMALL_MODELS, all_models

MODELS = all_models()


def real_model(content: dict[str, Any]) -> Any:
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(AutoConfig.for_model(**content))


def test_every_family_has_a_model_here() -> None:
    assert set(SMALL_MODELS) == set(FAMILIES)


@pytest.mark.parametrize("name", MODELS)
def test_the_count_is_that_of_the_real_model(name: str) -> None:
    model = real_model(MODELS[name])
    for config in (model.config.to_json_string(), model.config.to_json_string(use_diff=False)):
        shape = model_shape(json.loads(config))
        assert shape.num_parameters == sum(parameter.numel() for parameter in model.parameters())
        assert sum(shape.parts.values()) == shape.num_parameters
        assert shape.is_tied == (model.get_output_embeddings().weight is model.get_input_embeddings().weight)


@pytest.mark.parametrize("name", [name for name in MODELS if "gpt" not in name and name[:3] != "phi"])
def test_the_matrices_are_those_that_are_split(name: str) -> None:
    model = real_model(MODELS[name])
    shape = model_shape(json.loads(model.config.to_json_string()))
    ours = [size for layer in shape.layers for size in layer.tensors.values()] + list(shape.ends.values())
    largest = sorted((parameter.numel() for parameter in model.parameters()), reverse=True)
    few = sum(parameter.dim() > 1 for parameter in model.parameters())
    assert sorted(ours, reverse=True)[:few] == largest[:few]


def test_what_a_config_leaves_out_is_as_transformers_has_it() -> None:
    for family in ("gemma", "gpt2", "smollm3", "starcoder2", "qwen3", "llama"):
        content = SMALL_MODELS[family]
        bare = {key: value for key, value in content.items() if key not in ("head_dim", "num_key_value_heads")}
        model = real_model({"model_type": family, **bare, "num_key_value_heads": 8})
        shape = model_shape({"model_type": family, **bare, "num_key_value_heads": 8})
        assert shape.num_parameters == sum(parameter.numel() for parameter in model.parameters()), family


def test_known_sizes() -> None:
    assert model_shape(LLAMA_8B).num_parameters == 8_030_261_248
    active = sum(layer.num_active for layer in model_shape(MODELS["mixtral"]).layers)
    dense = sum(layer.num_parameters for layer in model_shape(MODELS["mixtral"]).layers)
    experts = 2 * 8 * 3 * 128 * 384  # layers, experts, matrices
    assert dense - active == experts * 6 / 8


def test_a_missing_key_is_named() -> None:
    config = {key: value for key, value in LLAMA_8B.items() if key != "hidden_size"}
    with pytest.raises(UserError, match="hidden_size"):
        model_shape(config)


@pytest.mark.parametrize("name", ["llama", "llama, tied", "gpt2", "qwen3_moe"])
def test_the_tensors_of_a_file_are_counted_as_they_are(name: str) -> None:
    model = real_model(MODELS[name])
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    config = {**json.loads(model.config.to_json_string()), "intermediate_size": 96}
    config |= {key: MODELS[name][old] for key, old in (("hidden_size", "n_embd"),) if old in MODELS[name]}
    shape = shape_from_tensors({**config, "model_type": "unheard-of"}, sizes)
    assert shape.num_parameters == sum(sizes.values())
    assert len(shape.layers) == 2
    assert shape.is_tied == (name in ("llama, tied", "gpt2"))
