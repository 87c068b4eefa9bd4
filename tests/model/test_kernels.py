"""A part of a model gets a kernel only where it is known by what it computes; the rest, and other models, stay."""

import copy
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import silu
from transformers import CONFIG_MAPPING
from transformers.models.llama import modeling_llama
from transformers.models.llama.modeling_llama import LlamaMLP, LlamaRMSNorm

from sft.config import ModelConfig
from sft.errors import UserError
from sft.model.kernels import DEFINITIONS, apply_kernels, count_kernels, fuse, without_kernels
from sft.model.recognition import as_gate, as_norm, as_rotation
from sft.model.tiny_model import tiny_config, tiny_model
from tests.model.kernel_table import TABLE, kernels_of, read_table, render
from tests.model.sweep import CLASSES

CPU = torch.device("cpu")
BFLOAT16 = torch.bfloat16

SOME = {
    "llama": "norm, rotary, gated MLP",
    "gemma2": "norm, rotary, gated MLP",
    "olmo2": "norm, rotary, gated MLP",
    "glm4": "norm, rotary, gated MLP",
    "mixtral": "norm, rotary, gate of experts",
    "deepseek_v3": "norm, rotary, gated MLP, gate of experts",
    "gpt_oss": "norm, rotary",
    "cohere": "rotary, gated MLP",
    "gpt2": "none",
}
"""Norms that round at each of the places, and none that is known; rotary embeddings of halves, of
neighbours, of a part; gates in one tensor, of experts, and one that is cut off."""


def test_every_family_is_in_the_docs(request: pytest.FixtureRequest) -> None:
    """With `--all-families` they are all tried, and with `--pin` the page is written."""
    if request.config.getoption("--all-families"):
        page = render({family: kernels_of(family) for family in sorted(CLASSES)})
        if request.config.getoption("--pin"):
            TABLE.write_text(page, encoding="utf-8")
        assert TABLE.read_text(encoding="utf-8") == page
    assert sorted(read_table()) == sorted(CLASSES)


@pytest.mark.parametrize("family", SOME)
def test_a_family_gets_the_kernels_that_the_docs_say_and_the_same_logits_to_the_bit(family: str) -> None:
    assert kernels_of(family) == SOME[family] == read_table()[family]


# ---------------------------------------------------------------- what is not known


class Llama(nn.Module):
    """Llama's norm, to be changed a little."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(64, dtype=BFLOAT16))
        self.eps = 1e-6

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * self.normed(x).to(x.dtype)

    def normed(self, x: Tensor) -> Tensor:
        return x.float() * torch.rsqrt(x.float().pow(2).mean(-1, keepdim=True) + self.eps)


class Doubled(Llama):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


class EpsBehindTheRoot(Llama):
    def normed(self, x: Tensor) -> Tensor:
        return x.float() / (x.float().pow(2).mean(-1, keepdim=True).sqrt() + self.eps)


class CutOff(Llama):
    def normed(self, x: Tensor) -> Tensor:
        return super().normed(x.clamp(-100, 100))


class NoGradient(Llama):
    def normed(self, x: Tensor) -> Tensor:
        return x.float() * torch.rsqrt(x.detach().float().pow(2).mean(-1, keepdim=True) + self.eps)


class RoundedSquares(Llama):
    def normed(self, x: Tensor) -> Tensor:
        return x.float() * torch.rsqrt(x.pow(2).mean(-1, keepdim=True).float() + self.eps)


@pytest.mark.parametrize("kind", [Doubled, EpsBehindTheRoot, CutOff, NoGradient, RoundedSquares])
def test_a_norm_that_does_anything_else_is_not_known(kind: Callable[[], nn.Module]) -> None:
    known = as_norm(Llama(), BFLOAT16)
    assert known is not None
    assert (known.form, known.eps, known.weight) == ("weight_after", 1e-6, "weight")
    assert as_norm(kind(), BFLOAT16) is None


def test_a_layer_norm_and_a_linear_layer_are_no_norm() -> None:
    assert as_norm(nn.LayerNorm(64, dtype=BFLOAT16), BFLOAT16) is None
    assert as_norm(nn.Linear(64, 64, dtype=BFLOAT16), BFLOAT16) is None


class Mlp(nn.Module):
    """The gated MLP of many families, to be changed a little."""

    def __init__(self, linear: Any = nn.Linear) -> None:
        super().__init__()
        self.a = linear(16, 32)
        self.b = linear(32, 16)
        self.c = linear(16, 32)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(silu(self.c(x)) * self.a(x))


class Clamped(Mlp):
    def forward(self, x: Tensor) -> Tensor:
        return self.b(silu(self.c(x).clamp(max=7.0)) * self.a(x))


class Sigmoid(Mlp):
    def forward(self, x: Tensor) -> Tensor:
        return self.b(torch.sigmoid(self.c(x)) * self.a(x))


class Dropping(Mlp):
    def __init__(self) -> None:
        super().__init__()
        self.drop = nn.Dropout(0.0)

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(super().forward(x))


class LowRank(nn.Linear):
    """As adapters and quantized layers are: a class of its own in a linear layer's place."""


@pytest.mark.parametrize("make", [Clamped, Sigmoid, Dropping, lambda: Mlp(LowRank)])
def test_an_mlp_that_does_anything_else_is_not_known(make: Callable[[], nn.Module]) -> None:
    assert as_gate(Mlp()) == ("silu", "c", "a", "b")
    assert as_gate(make()) is None


def test_a_rotation_by_other_angles_is_not_known() -> None:
    def backwards(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, unsqueeze_dim: int = 1) -> Any:
        return modeling_llama.apply_rotary_pos_emb(q, k, cos, -sin, unsqueeze_dim)

    def swapped(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, unsqueeze_dim: int = 1) -> Any:
        return modeling_llama.apply_rotary_pos_emb(k, q, cos, sin, unsqueeze_dim)

    known = as_rotation(modeling_llama.apply_rotary_pos_emb, BFLOAT16)
    assert known is not None
    assert (known.turns_all, known.turns_part) == (True, False)
    assert as_rotation(backwards, BFLOAT16) is None
    assert as_rotation(swapped, BFLOAT16) is None


# ---------------------------------------------------------------- what is put into a model


@pytest.fixture
def llama() -> Any:
    return tiny_model(tiny_config(CONFIG_MAPPING["llama"]()), None)


def logits(model: Any) -> Tensor:
    made: Tensor = model(input_ids=torch.arange(9)[None] + 1, use_cache=False).logits
    return made


def test_modules_keep_their_class_their_hooks_and_their_weights(llama: Any) -> None:
    names, seen = list(llama.state_dict()), []
    state = torch.random.get_rng_state()
    fuse(llama, DEFINITIONS, CPU)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert count_kernels(llama) == {"norm": 5, "rotary": 2, "gated MLP": 2}
    assert list(llama.state_dict()) == names
    layer = llama.model.layers[0]
    assert isinstance(layer.mlp, LlamaMLP)
    assert isinstance(layer.input_layernorm, LlamaRMSNorm)
    for module in (layer.mlp, layer.mlp.gate_proj, layer.input_layernorm, layer.self_attn):
        module.register_forward_hook(lambda module, *_: seen.append(module))
    logits(llama)
    assert seen == [layer.input_layernorm, layer.self_attn, layer.mlp.gate_proj, layer.mlp]
    with torch.no_grad():
        before = logits(llama)
        layer.input_layernorm.weight.mul_(2.0)
        assert not torch.equal(logits(llama), before), "the weight is the module's own"


def test_a_copy_and_another_model_of_the_class_are_their_own(llama: Any) -> None:
    other = copy.deepcopy(llama)
    fuse(llama, DEFINITIONS, CPU)
    assert count_kernels(other) == Counter()
    twin = copy.deepcopy(llama)
    with torch.no_grad():
        twin.model.norm.weight.zero_()
        assert not logits(twin).any()
        assert logits(llama).any()
    assert (
        modeling_llama.LlamaAttention.forward.__globals__["apply_rotary_pos_emb"] is modeling_llama.apply_rotary_pos_emb
    )


def test_without_kernels_a_model_is_transformers_own_until_the_block_ends(llama: Any) -> None:
    broken = DEFINITIONS._replace(norm=lambda x, *_: 0 * x)
    fuse(llama, broken, CPU)
    assert count_kernels(llama) == {"rotary": 2, "gated MLP": 2}, "what is wrong on the device is left out"
    with without_kernels(llama):
        assert count_kernels(llama) == Counter()
    assert count_kernels(llama) == {"rotary": 2, "gated MLP": 2}


def test_gradients_are_the_same_with_checkpointing(llama: Any) -> None:
    plain = copy.deepcopy(llama)
    fuse(llama, DEFINITIONS, CPU)
    llama.train().activation_checkpointing_enable({"use_reentrant": False})
    for model in (plain, llama):
        logits(model).square().mean().backward()
    for expected, found in zip(plain.parameters(), llama.parameters(), strict=True):
        torch.testing.assert_close(found.grad, expected.grad, rtol=1e-5, atol=1e-7)


def test_without_a_gpu_nothing_changes_and_liger_is_refused(llama: Any) -> None:
    for choice in ("auto", "none"):
        apply_kernels(llama, ModelConfig(path="m", kernels=choice), CPU)
    with pytest.raises(
        UserError, match=r"model.kernels: liger needs a GPU, and there is none here. Set model.kernels=auto"
    ):
        apply_kernels(llama, ModelConfig(path="m", kernels="liger"), CPU)
    with pytest.raises(UserError, match=r"the package liger-kernel, which is not installed here"):
        apply_kernels(llama, ModelConfig(path="m", kernels="liger"), torch.device("cuda"))
    assert count_kernels(llama) == Counter()
