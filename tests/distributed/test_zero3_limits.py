"""The engine chooses the same limits as the plan: both count the same parts, in the model and in its config.json."""

import json

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from sft.engine import zero3_limits
from sft.engine.leaf_layers import part_sizes
from sft.model.text_path import text_decoder
from sft.sizing.model_shape import model_shape
from sft.sizing.setting import count_parts
from tests.sizing.models import LLAMA_8B, all_models


@pytest.mark.parametrize("name", all_models())
def test_the_parts_of_a_config_are_those_of_its_model(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    content = all_models()[name]
    if content.get("vocab_size") == 512:  # the widths of a small model, and what is small beside them
        monkeypatch.setattr(zero3_limits, "PERSISTENT", 600)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**content))
    counted = part_sizes(model, text_decoder(model), torch.numel)
    assert counted == count_parts(model_shape(json.loads(model.config.to_json_string())))
    assert counted.largest_layer > 0


def test_an_8b_layer() -> None:
    assert count_parts(model_shape(LLAMA_8B)).largest_layer == 218_103_808
