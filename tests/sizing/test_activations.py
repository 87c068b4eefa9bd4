"""What a layer is said to keep is what autograd really keeps of transformers' own layers, tensor by tensor."""

import copy
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from sft.config_training import TrainConfig
from sft.model import fused
from sft.model.attention import PACKED_ATTENTION
from sft.model.kernels import DEFINITIONS, OURS, Kernels, fuse
from sft.model.recomputation import recompute_layers
from sft.model.sequence_parallel import SequenceGroup, SplitRow
from sft.model.split_probe import run_parts
from sft.recomputed_layers import Recomputed
from sft.sizing.activations import Numbers, kept_per_token
from sft.sizing.model_shape import model_shape
from sft.sizing.traffic import step_traffic
from tests.model.kept_bytes import hidden_states, kept_bytes
from tests.sizing.models import all_models
from tests.sizing.test_memory import ON_8_GPUS

NUM_TOKENS, SEGMENT_LEN = 256, 64
# Its capped scores are computed in blocks that keep their inputs alone: a twentieth less than is said.
MODELS = {name: content for name, content in all_models().items() if content["model_type"] != "gemma2"}


def kept_of(
    content: dict[str, Any], num_layers: int, dtype: torch.dtype, kernels: Kernels | None = None, num_parts: int = 1
) -> int:
    """Of a forward pass of all layers, over one part of a row if there are several."""
    key = "n_layer" if "n_layer" in content else "num_hidden_layers"
    config = AutoConfig.for_model(**{**content, key: num_layers})
    model: Any = AutoModelForCausalLM.from_config(config, attn_implementation=PACKED_ATTENTION, dtype=dtype)
    if kernels:
        fuse(model, kernels, torch.device("cpu"))
    return kept_bytes(model.train(), lambda: hidden_states(model, NUM_TOKENS, SEGMENT_LEN, num_parts))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("name", MODELS)
def test_a_layer_keeps_what_is_said(name: str, dtype: torch.dtype) -> None:
    content = MODELS[name]
    if name == "qwen2_moe with dense layers":
        content = {**content, "decoder_sparse_step": 1, "mlp_only_layers": []}
    if content["model_type"] == "gpt2":
        content = {**content, "attn_pdrop": 0.0}  # packs do not drop attention weights
    if name == "phi":
        content = {**content, "resid_pdrop": 0.1}
    real = (kept_of(content, 4, dtype) - kept_of(content, 2, dtype)) / 2 / NUM_TOKENS
    shape = model_shape(content)
    estimate = kept_per_token(shape, shape.layers[0], Numbers(dtype.itemsize, on_gpu=False, has_dropout=True))
    assert estimate == pytest.approx(real, rel=0.01)


def test_with_fused_kernels_a_layer_keeps_only_their_inputs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused, "BLOCK", 1 << 16)  # the interpreter takes as long for small programs as for large ones
    (content,) = (content for content in MODELS.values() if content["model_type"] == "qwen3")
    kernels = OURS._replace(rotary=DEFINITIONS.rotary)
    three, two = (kept_of(content, num_layers, torch.bfloat16, kernels) for num_layers in (3, 2))
    shape = model_shape(content)
    estimate = kept_per_token(shape, shape.layers[0], Numbers(2, on_gpu=False, has_kernels=True))
    assert estimate == pytest.approx((three - two) / NUM_TOKENS, rel=0.01)
    assert estimate < 0.9 * kept_per_token(shape, shape.layers[0], Numbers(2, on_gpu=False))


# With as many ranks as heads of keys, and with more; with values that are a part of a fused projection.
@pytest.mark.parametrize(("name", "num_parts"), [("llama", 4), ("qwen3", 8), ("gpt_neox", 2)])
def test_a_part_of_a_row_keeps_its_tokens_and_what_is_exchanged(name: str, num_parts: int) -> None:
    content = MODELS[name]
    four, two = (kept_of(content, num, torch.float32, num_parts=num_parts) for num in (4, 2))
    shape = model_shape(content)
    numbers = Numbers(4, on_gpu=False, num_parts=num_parts)
    assert kept_per_token(shape, shape.layers[0], numbers) == pytest.approx((four - two) / 2 / NUM_TOKENS, rel=0.01)


@pytest.mark.parametrize(("recomputed", "num_parts"), [("none", 2), ("all", 4), ("all", 8)])
def test_workers_that_share_a_row_send_each_other_what_is_said(recomputed: Recomputed, num_parts: int) -> None:
    """Of 8 heads and 4 of keys: with 8 workers each of these is sent twice."""
    content, num_tokens = MODELS["llama"], 16
    config = AutoConfig.for_model(**content)
    model: Any = AutoModelForCausalLM.from_config(config, attn_implementation=PACKED_ATTENTION, dtype=torch.float32)
    recompute_layers(model, TrainConfig(activation_checkpointing=recomputed))
    bounds = torch.tensor([0, 5, num_parts * num_tokens], dtype=torch.int32)

    def run(group: SequenceGroup) -> int:
        sent = []

        def counted(values: torch.Tensor) -> torch.Tensor:
            sent.append(values.nbytes * (group.size - 1) // group.size)
            return group.all_to_all(values)

        own = copy.deepcopy(model).train()
        row = SplitRow(group._replace(all_to_all=counted), bounds, num_parts * num_tokens)
        ids = torch.arange(num_tokens)[None]
        hidden = own.base_model(input_ids=ids, position_ids=ids, use_cache=False, split_row=row).last_hidden_state
        hidden.sum().backward()
        return sum(sent)

    numbers = Numbers(4, on_gpu=False, num_parts=num_parts)
    setting = ON_8_GPUS._replace(num_tokens=num_tokens, numbers=numbers, activation_checkpointing=recomputed)
    expected = step_traffic(model_shape(content), setting, 1).exchanged
    assert run_parts(num_parts, run) == [expected] * num_parts
