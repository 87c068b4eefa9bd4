"""The count of operations is torch's own, of the matrix products that a model really does."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, AutoModelForCausalLM

from sft.sizing.flops import TokenCounts, training_flops, training_seconds
from sft.sizing.model_shape import model_shape
from tests.sizing.models import SMALL_MODELS


@pytest.mark.parametrize("name", ["llama", "qwen3", "gpt_neox", "phi3"])
def test_matrix_products_are_counted_as_torch_counts_them(name: str) -> None:
    content = {"model_type": name, **SMALL_MODELS[name]}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**content), attn_implementation="sdpa")
    num_tokens = 96
    with FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, num_tokens, dtype=torch.int64)).logits.sum().backward()
    counted = counter.get_flop_counts()["Global"]
    products = sum(count for operation, count in counted.items() if "mm" in str(operation))
    shape = model_shape(content)
    ours = training_flops(shape, TokenCounts(num_tokens, num_tokens, 0))
    # Norms and biases are counted as if they were matrices: a part in a thousand.
    assert ours == pytest.approx(products, rel=0.01)


def test_attention_looks_back_only() -> None:
    shape = model_shape({"model_type": "llama", **SMALL_MODELS["llama"]})
    lengths = [5, 11]
    pairs = sum(n * n for n in lengths)
    without = training_flops(shape, TokenCounts(16, 0, 0))
    attention = training_flops(shape, TokenCounts(16, 0, pairs)) - without
    # Two products of the width of all heads with half of the pairs, two operations each, forward and twice backward.
    assert attention == 3 * 2 * 2 * 128 * (pairs / 2) * len(shape.layers)


def test_unsupervised_positions_have_no_logits() -> None:
    shape = model_shape({"model_type": "llama", **SMALL_MODELS["llama"]})
    more = training_flops(shape, TokenCounts(100, 60, 0)) - training_flops(shape, TokenCounts(100, 10, 0))
    assert more == 50 * 6 * 512 * 128


def test_twice_the_gpus_take_half_the_time() -> None:
    assert training_seconds(8e15, 0.5, 1000.0, 2) == pytest.approx(8.0)
    assert training_seconds(8e15, 0.5, 1000.0, 4) == pytest.approx(4.0)
