"""A packed row gives each example the nll that plain transformers gives it alone, for every family of models."""

from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from sft.data.collate import collate
from sft.errors import UserError
from sft.model.attention import PACKED_ATTENTION
from sft.model.loss import SupervisedNll, sums_by_segment
from sft.schema import Pack

VOCAB = 96
SMALL = {"vocab_size": VOCAB, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 128}
TOKENS = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
GPT2 = {
    "vocab_size": VOCAB,
    "n_embd": 32,
    "n_layer": 2,
    "n_head": 4,
    "n_positions": 128,
    "bos_token_id": 0,
    "eos_token_id": 1,
}

FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {},
    "qwen2": {},
    "qwen3": {},
    "mistral": {"sliding_window": 8},
    "phi3": {"sliding_window": 8},
    "gemma3_text": {"sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]},
    "granite": {"logits_scaling": 4.0},
    "cohere": {"logit_scale": 0.25},
    "olmo2": {},
    "gpt2": {},
}


def build(family: str, attention: str, **changes: Any) -> Any:
    settings = GPT2 if family == "gpt2" else {**SMALL, **HEADS, **TOKENS, **FAMILIES.get(family, {})}
    config = AutoConfig.for_model(family, **{**settings, **changes})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model: Any = AutoModelForCausalLM.from_config(config, attn_implementation=attention)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return model.float()


@pytest.fixture(scope="module")
def pack() -> Pack:
    rng = np.random.default_rng(0)
    lengths = [5, 21, 2, 13]
    masks = [np.arange(n) >= max(1, n // 2) for n in lengths]
    starts = np.cumsum([0, *lengths])
    return Pack(0, np.arange(4), rng.integers(3, VOCAB, starts[-1]), np.concatenate(masks), starts)


def nll_alone(model: Any, pack: Pack) -> torch.Tensor:
    """The summed nll of each segment as a row of its own, by transformers' own attention and logits."""
    sums = []
    for start, stop in zip(pack.cu_seqlens, pack.cu_seqlens[1:], strict=False):
        ids = torch.from_numpy(pack.input_ids[start:stop])[None]
        log_probs = model(ids).logits[0].log_softmax(-1)
        at = torch.from_numpy(pack.loss_mask[start:stop]).nonzero().squeeze(1)
        sums.append(-log_probs[at - 1, ids[0, at]].sum())
    return torch.stack(sums)


@pytest.mark.parametrize("family", FAMILIES)
def test_packed_equals_alone(family: str, pack: Pack) -> None:
    plain, packed = build(family, "eager"), build(family, PACKED_ATTENTION)
    module = SupervisedNll(packed, chunk_tokens=7)
    batch = collate([pack])
    nll_S = module(batch)
    expected = nll_alone(plain, pack)
    torch.testing.assert_close(sums_by_segment(nll_S, batch), expected.double(), rtol=1e-4, atol=1e-4)
    nll_S.sum().backward()
    expected.sum().backward()
    gradients = {name: p.grad for name, p in packed.named_parameters()}
    for name, parameter in plain.named_parameters():
        torch.testing.assert_close(gradients[name], parameter.grad, rtol=1e-3, atol=1e-4)


def test_no_segment_sees_another(pack: Pack) -> None:
    """Other tokens in one segment leave the nll of all others as it was, to the bit."""
    module = SupervisedNll(build("llama", PACKED_ATTENTION), chunk_tokens=64)
    before = sums_by_segment(module(collate([pack])), collate([pack]))
    for segment in range(4):
        changed = pack.input_ids.copy()
        part = slice(pack.cu_seqlens[segment], pack.cu_seqlens[segment + 1])
        changed[part] = (changed[part] + 7) % VOCAB
        batch = collate([Pack(0, pack.example_ids, changed, pack.loss_mask, pack.cu_seqlens)])
        after = sums_by_segment(module(batch), batch)
        assert [i for i in range(4) if after[i] != before[i]] == [segment]


@pytest.mark.parametrize("chunk_tokens", [1, 3, 1000])
def test_the_size_of_the_chunks_changes_nothing(pack: Pack, chunk_tokens: int) -> None:
    batch = collate([pack])
    found = SupervisedNll(build("llama", PACKED_ATTENTION), chunk_tokens)(batch)
    torch.testing.assert_close(found, SupervisedNll(build("llama", PACKED_ATTENTION), 8)(batch), rtol=1e-6, atol=1e-6)


def test_an_empty_micro_batch_reaches_every_parameter_with_zero() -> None:
    """A rank without packs must take part in every collective, which a parameter's gradient starts."""
    model = build("llama", PACKED_ATTENTION)
    nll_S = SupervisedNll(model, 8)(collate([None]))
    assert nll_S.shape == (0,)
    nll_S.sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert not parameter.grad.any(), name


def test_attention_that_cannot_be_packed_is_refused(pack: Pack) -> None:
    model = build("llama", PACKED_ATTENTION, attention_dropout=0.5)
    with pytest.raises(UserError, match="drops attention weights"):
        SupervisedNll(model, 8)(collate([pack]))
