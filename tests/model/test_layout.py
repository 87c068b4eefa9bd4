"""Whether a model may be packed is found by trying it: leaks, looking ahead and other logits show, rounding not."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import CONFIG_MAPPING, LlamaConfig, LlamaForCausalLM

from sft.config import ModelConfig
from sft.data.collate import Batch
from sft.errors import UserError
from sft.model.attention import PACKED_ATTENTION, other_rounding
from sft.model.dropout import turn_dropout_off
from sft.model.layout import choose_layout, try_layout
from sft.model.loss import SupervisedNll
from sft.model.packing_probe import TokenNll, ordinary_token_ids, probe_batch, probe_layout
from sft.model.tiny_model import MAX_LAYERS, tiny_config, tiny_model


def build(family: str, attention: str | None = PACKED_ATTENTION, **given: Any) -> SupervisedNll:
    return SupervisedNll(tiny_model(tiny_config(CONFIG_MAPPING[family](**given)), attention), 64)


def nll_of(module: SupervisedNll) -> TokenNll:
    def nll(batch: Batch, by_own_forward: bool) -> Tensor:
        with torch.no_grad():
            return module(batch, by_own_forward)

    return nll


def probe(module: SupervisedNll, nll: TokenNll, dtype: torch.dtype = torch.float32) -> str | None:
    return probe_layout(nll, ordinary_token_ids(module.model.config), "packed", dtype)


def test_a_pack_whose_boundaries_are_lost_is_found() -> None:
    module = build("llama")
    right = nll_of(module)

    def without_boundaries(batch: Batch, by_own_forward: bool) -> Tensor:
        total = int(batch.cu_seqlens[-1])
        return right(replace(batch, cu_seqlens=torch.tensor([0, total], dtype=torch.int32)), by_own_forward)

    assert probe(module, right) is None
    assert "changes the nll of others" in str(probe(module, without_boundaries))


def test_positions_that_do_not_begin_again_are_found() -> None:
    module = build("gpt2")
    right = nll_of(module)

    def with_running_positions(batch: Batch, by_own_forward: bool) -> Tensor:
        positions = torch.arange(batch.input_ids_BT.shape[1])[None]
        return right(replace(batch, position_ids_BT=positions), by_own_forward)

    assert probe(module, right) is None
    assert "off that of the model's own forward pass" in str(probe(module, with_running_positions))


@pytest.mark.parametrize(("name", "value"), [("scale", 1.0), ("softcap", 5.0)])
def test_logits_that_are_not_the_models_own_are_found(name: str, value: float) -> None:
    module = build("granite", logits_scaling=4.0)
    assert probe(module, nll_of(module)) is None
    head = module.model.get_output_embeddings()
    head.logits = head.logits._replace(**{name: value})
    assert "off that of the model's own forward pass" in str(probe(module, nll_of(module)))


def test_a_window_that_is_too_long_is_found() -> None:
    module = build("mistral")
    assert module.model.config.sliding_window == 8
    assert probe(module, nll_of(module)) is None
    for layer in module.model.model.layers:
        layer.self_attn.sliding_window = layer.self_attn.config.sliding_window = 12
    right = build("mistral")
    ours, theirs = nll_of(module), nll_of(right)

    def mixed(batch: Batch, by_own_forward: bool) -> Tensor:
        return theirs(batch, True) if by_own_forward else ours(batch, False)

    assert probe(module, mixed) is not None


@pytest.mark.parametrize("family", ["llama", "mixtral"])
def test_rounding_of_bfloat16_is_no_leak(family: str) -> None:
    module = build(family).to(torch.bfloat16)
    assert probe(module, nll_of(module), torch.bfloat16) is None


def test_a_model_that_turns_rounding_into_more_is_measured_by_its_own_rounding() -> None:
    """As trained models do for some inputs: SmolLM2 of 135M parameters by up to 0.7 nats."""
    torch.manual_seed(0)
    sizes = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 8}
    config = LlamaConfig(**sizes, num_attention_heads=4, num_key_value_heads=2, initializer_range=0.3)
    model = LlamaForCausalLM._from_config(config, attn_implementation=PACKED_ATTENTION, dtype=torch.bfloat16)
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.q_proj.weight.mul_(4)
            layer.self_attn.k_proj.weight.mul_(4)
    module = SupervisedNll(model.eval(), 64)
    token_ids, rounding = ordinary_token_ids(config), partial(other_rounding, model, "packed")
    assert "off that" in str(probe_layout(nll_of(module), token_ids, "packed", torch.bfloat16))
    assert probe_layout(nll_of(module), token_ids, "packed", torch.bfloat16, rounding) is None
    head = model.get_output_embeddings()
    head.logits = head.logits._replace(scale=0.5)
    assert "off that" in str(probe_layout(nll_of(module), token_ids, "packed", torch.bfloat16, rounding))


def test_an_nll_that_is_not_finite_is_refused_wherever_it_is_met() -> None:
    """Alone, beside others, beside changed ones, or rounded otherwise: a NaN would compare as no difference."""
    module = build("llama").to(torch.bfloat16)
    ours, token_ids = nll_of(module), ordinary_token_ids(module.model.config)
    for wrong in range(8):
        assert probe_layout(_nan_in_call(ours, wrong), token_ids, "packed", torch.bfloat16) == "its nll is not finite"
    assert probe_layout(_nan_in_call(ours, 8), token_ids, "packed", torch.bfloat16) is None, "it is called so often"


def _nan_in_call(nll: TokenNll, wrong: int) -> TokenNll:
    calls = iter(range(100))
    return lambda batch, own: nll(batch, own) * (float("nan") if next(calls) == wrong else 1)


@pytest.mark.parametrize("family", ["codegen", "jamba", "mamba"])
def test_a_leak_shows_in_bfloat16_too(family: str) -> None:
    module = build(family).to(torch.bfloat16)
    assert probe(module, nll_of(module), torch.bfloat16) is not None


def config_of(folder: Path, family: str, **given: Any) -> ModelConfig:
    content = {"model_type": family, **CONFIG_MAPPING[family](**given).to_dict()}
    (folder / "config.json").write_text(json.dumps(content, default=str))
    return ModelConfig(path=str(folder))


def test_auto_packs_where_it_may_and_says_why_not(tmp_path: Path) -> None:
    assert choose_layout(config_of(tmp_path, "llama"), "auto", 512) == ("packed", None)
    codegen = config_of(tmp_path, "codegen")
    layout, reason = choose_layout(codegen, "auto", 512)
    assert layout == "one_example"
    assert "changes the nll of others" in str(reason)
    assert choose_layout(codegen, "one_example", 512) == ("one_example", None)
    with pytest.raises(UserError, match=r"codegen cannot be trained packed: .*changes.* Set train\.packing=auto"):
        choose_layout(codegen, "packed", 512)


def test_a_model_that_is_right_in_no_layout_is_refused_with_both_reasons(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"Packed: .* One example a row: .*looks ahead.* Choose another model"):
        choose_layout(config_of(tmp_path, "bert"), "auto", 512)


def test_a_model_whose_small_form_is_not_known_is_left_to_the_run(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "unheard-of"}')
    layout, reason = choose_layout(ModelConfig(path=str(tmp_path)), "auto", 512)
    assert layout == "packed"
    assert "the run tries it at its start" in str(reason)


def test_positions_that_depend_on_the_longest_example_are_refused(tmp_path: Path) -> None:
    rope = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}
    model = config_of(tmp_path, "llama", rope_parameters=rope, max_position_embeddings=1024)
    assert choose_layout(model, "auto", 1024).layout == "packed"
    with pytest.raises(UserError, match=r"data\.max_len_tokens: 1025 is more than 1024"):
        choose_layout(model, "auto", 1025)


def test_dropout_is_off_and_the_config_stays() -> None:
    module = build("gpt2", None)
    batch = probe_batch(range(10), "one_example")
    module.train()
    assert not module(batch).equal(module(batch))
    turn_dropout_off(module)
    assert module(batch).equal(module(batch))
    assert module.model.config.attn_pdrop == module.model.config.resid_pdrop == 0.1


def test_attention_that_drops_weights_is_not_packed() -> None:
    config = CONFIG_MAPPING["gpt2"]()
    assert try_layout(config, "packed") is None
    assert "drops attention weights" in str(try_layout(config, "packed", "as_configured"))
    assert try_layout(config, "one_example", "as_configured") is None


@pytest.mark.parametrize("family", ["llama", "deepseek_v3", "jamba", "qwen3_next"])
def test_a_tiny_model_has_all_kinds_of_layers(family: str) -> None:
    config = CONFIG_MAPPING[family]()
    small = tiny_config(config)
    assert sum(p.numel() for p in tiny_model(small, None).parameters()) < 2_000_000
    assert small.num_hidden_layers <= MAX_LAYERS
    for name in ("layer_types", "layers_block_type"):
        assert set(getattr(small, name, None) or ()) == set(getattr(config, name, None) or ())
