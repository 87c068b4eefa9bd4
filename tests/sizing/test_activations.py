"""What a layer is said to keep is what autograd really keeps of transformers' own layers, tensor by tensor."""

from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from sft.model import fused
from sft.model.attention import PACKED_ATTENTION
from sft.model.kernels import DEFINITIONS, OURS, Kernels, fuse
from sft.sizing.activations import Numbers, kept_per_token
from sft.sizing.model_shape import model_shape
from tests.model.kept_bytes import hidden_states, kept_bytes
from tests.sizing.models import all_models

NUM_TOKENS, SEGMENT_LEN = 512, 128
# Its capped scores are computed in blocks that keep their inputs alone: a twentieth less than is said.
MODELS = {name: content for name, content in all_models().items() if content["model_type"] != "gemma2"}


def kept_of(content: dict[str, Any], num_layers: int, dtype: torch.dtype, kernels: Kernels | None = None) -> int:
    """Of a forward pass of all layers."""
    key = "n_layer" if "n_layer" in content else "num_hidden_layers"
    config = AutoConfig.for_model(**{**content, key: num_layers})
    model: Any = AutoModelForCausalLM.from_config(config, attn_implementation=PACKED_ATTENTION, dtype=dtype)
    if kernels:
        fuse(model, kernels, torch.device("cpu"))
    return kept_bytes(model.train(), lambda: hidden_states(model, NUM_TOKENS, SEGMENT_LEN))


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
