"""Layers that compute activations again give the same bits, and keep what the plan says: for every choice."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import pytest
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM

from sft.config_training import TrainConfig
from sft.errors import UserError
from sft.model import recomputation
from sft.model.attention import PACKED_ATTENTION
from sft.model.recomputation import decoder_layers, recompute_layers
from sft.recomputed_layers import Recomputed, recomputed_layers
from sft.sizing.activations import Numbers, kept_per_token
from sft.sizing.model_shape import model_shape
from tests.sizing.models import SMALL_MODELS

NUM_TOKENS, SEGMENT_LEN, NUM_LAYERS = 128, 64, 4
CHOICES: tuple[Recomputed, ...] = ("none", "all", 2, 0.5, 0.75)
FAMILIES = ("llama", "gpt2", "qwen3", "mixtral", "phi")


def build(name: str, num_layers: int = NUM_LAYERS, dtype: torch.dtype = torch.float32) -> Any:
    content = {**SMALL_MODELS[name], "attn_pdrop": 0.0, "resid_pdrop": 0.1}
    content["n_layer" if "n_layer" in content else "num_hidden_layers"] = num_layers
    config = AutoConfig.for_model(name, **content)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(config, attn_implementation=PACKED_ATTENTION, dtype=dtype).train()


def forward(model: Any) -> Tensor:
    bounds = torch.arange(0, NUM_TOKENS + 1, SEGMENT_LEN, dtype=torch.int32)
    hidden = model.base_model(
        input_ids=torch.arange(NUM_TOKENS)[None] % 500,
        position_ids=(torch.arange(NUM_TOKENS) % SEGMENT_LEN)[None],
        use_cache=False,
        cu_seq_lens_q=bounds,
        cu_seq_lens_k=bounds,
        max_length_q=SEGMENT_LEN,
        max_length_k=SEGMENT_LEN,
    ).last_hidden_state
    return cast(Tensor, hidden)


def gradient(name: str, train: TrainConfig) -> Tensor:
    model = build(name)
    recompute_layers(model, train)
    torch.manual_seed(5)  # the seed of the batch, of which dropout is drawn
    (forward(model) ** 2).sum().backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def kept_bytes(model: Any) -> int:
    """Bytes that autograd keeps, or a layer for its recomputation; without parameters, each storage once."""
    own = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        hidden = forward(model)
    assert hidden is not None
    return sum(storage.nbytes() for storage in kept.values())


@pytest.mark.parametrize("name", FAMILIES)
def test_the_gradient_is_the_same_to_the_bit_for_every_choice(name: str) -> None:
    expected = gradient(name, TrainConfig(activation_checkpointing="none"))
    for choice in CHOICES[1:]:
        assert torch.equal(gradient(name, TrainConfig(activation_checkpointing=choice)), expected), choice
    offloaded = TrainConfig(activation_checkpointing=0.5, offload_activations="cpu")
    assert torch.equal(gradient(name, offloaded), expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("name", FAMILIES)
def test_n_of_all_layers_keep_what_the_plan_says(name: str, dtype: torch.dtype) -> None:
    whole = kept_bytes(build(name, dtype=dtype))
    content = {"model_type": name, **SMALL_MODELS[name], "attn_pdrop": 0.0, "resid_pdrop": 0.1}
    shape = model_shape(content)
    of_layer = NUM_TOKENS * kept_per_token(shape, shape.layers[0], Numbers(dtype.itemsize, on_gpu=False))
    of_input = NUM_TOKENS * dtype.itemsize * shape.hidden_size
    for choice in CHOICES:
        model = build(name, dtype=dtype)
        recompute_layers(model, TrainConfig(activation_checkpointing=choice))
        freed = len(recomputed_layers(choice, NUM_LAYERS)) * (of_layer - of_input)
        assert whole - kept_bytes(model) == pytest.approx(freed, rel=0.015), choice


def test_only_the_inputs_of_layers_go_to_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[tuple[int, ...]] = []

    def to_host(tensor: Tensor) -> tuple[torch.device, Tensor]:
        sent.append(tuple(tensor.shape))
        return tensor.device, tensor.clone()

    model = build("llama")
    recompute_layers(model, TrainConfig(activation_checkpointing=0.75, offload_activations="cpu"))
    monkeypatch.setattr(recomputation, "_to_host", to_host)
    forward(model).sum().backward()
    assert sent == [(1, NUM_TOKENS, 128)] * 3


@pytest.mark.parametrize("name", SMALL_MODELS)
def test_every_family_with_a_formula_has_a_switch_for_each_layer(name: str) -> None:
    with without_numbers():
        config = AutoConfig.for_model(name, **SMALL_MODELS[name])
        model: Any = AutoModelForCausalLM.from_config(config)
    recompute_layers(model, TrainConfig(activation_checkpointing=0.5))
    switches = [layer.gradient_checkpointing for layer in decoder_layers(model)]
    assert switches == [True, False]


def test_a_class_without_switches_recomputes_all_or_none() -> None:
    with without_numbers():
        model: Any = AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", **SMALL_MODELS["llama"]))
    model.model.layers = torch.nn.ModuleList()  # as if they were of another kind
    recompute_layers(model, TrainConfig(activation_checkpointing="all"))
    with pytest.raises(UserError, match=r"all of its layers again, or none. Set it to all or none"):
        recompute_layers(model, TrainConfig(activation_checkpointing=2))
    model.supports_gradient_checkpointing = False
    with pytest.raises(UserError, match=r"cannot be computed again in the backward pass. Set it to none"):
        recompute_layers(model, TrainConfig())
    recompute_layers(model, TrainConfig(activation_checkpointing="none"))


@contextmanager
def without_numbers() -> Iterator[None]:
    with torch.device("meta"):
        yield


def test_earlier_configs_are_read() -> None:
    assert TrainConfig.model_validate({"activation_checkpointing": True}).activation_checkpointing == "all"
    assert TrainConfig.model_validate({"activation_checkpointing": False}).activation_checkpointing == "none"
    for written in ("all", "none", "auto", 1, 3, 0.5, 1.0):
        train = TrainConfig.model_validate({"activation_checkpointing": written})
        assert TrainConfig.model_validate(train.model_dump(mode="json")) == train
