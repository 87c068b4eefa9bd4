"""What is whole, and what is gathered again, is what DeepSpeed's rules give when they are followed module by module."""

from typing import NamedTuple

import pytest

from sft.recomputed_layers import Recomputed
from sft.sizing.gathering import gathered_bytes, num_gathered_again
from sft.sizing.model_shape import ModelShape, model_shape
from sft.sizing.setting import Buckets
from tests.sizing.models import LLAMA_8B, all_models
from tests.sizing.test_memory import ON_8_GPUS

MEDIUM = {**LLAMA_8B, "vocab_size": 32000, "hidden_size": 1024, "intermediate_size": 2816, "num_hidden_layers": 12}
SHAPES = {
    "medium": model_shape(MEDIUM),
    "tied": model_shape({**MEDIUM, "tie_word_embeddings": True}),
    "8B": model_shape(LLAMA_8B),
}


class Followed(NamedTuple):
    """Elements."""

    num_gathered: int
    whole_at_head: int


def follow(shape: ModelShape, buckets: Buckets, recomputed: range) -> Followed:
    """One forward and backward pass by the rules of DeepSpeed's coordinator, once it knows the order of modules.

    A module gathers what it needs; then what comes next in the order of uses is gathered, as much as a bucket and the
    limit of whole parameters allow. What is found whole there is kept for that use. Behind a module its parameters are
    given back, unless they are kept so, or are used again before so many others.
    """
    head = ("embeddings" if shape.is_tied else "head", shape.head_size)
    first = ("embeddings", shape.head_size)
    nothing = ("", 0)  # modules without parameters also gather ahead
    layers = []
    for i, layer in enumerate(shape.layers):
        tensors = [(f"{i}.{name}", size) for name, size in layer.tensors.items()]
        layers.append([module for tensor in tensors for module in (tensor, nothing)])
    backward = [(layer if i in recomputed else []) + layer[::-1] for i, layer in reversed(list(enumerate(layers)))]
    order = [first, *sum(layers, []), head, head, *sum(backward, []), first]
    at_head = 2 + sum(map(len, layers))
    sizes: dict[str, int] = {}
    kept_until: dict[str, int] = {}
    gathered = whole_at_head = queued = 0
    for i, (name, size) in enumerate(order):
        queued = max(queued, i + 1)
        gathered += size if name not in sizes else 0
        sizes[name] = size
        ahead, limit = 0, min(buckets.prefetch, buckets.live - sum(sizes.values()))
        while queued < len(order) and ahead < limit:
            other, other_size = order[queued]
            kept_until[other] = queued
            if other not in sizes:
                sizes[other] = other_size
                ahead += other_size
            queued += 1
        gathered += ahead
        if i == at_head:
            whole_at_head = sum(sizes.values())
        passed, is_used = 0, False
        for later, later_size in order[i + 1 :]:
            if passed >= buckets.reuse_distance or is_used:
                break
            is_used = later == name
            passed += later_size
        if not is_used and kept_until.get(name, -1) <= i:
            sizes.pop(name)
    return Followed(gathered, whole_at_head)


@pytest.mark.parametrize("checkpointing", ["all", "none", 0.5])
@pytest.mark.parametrize("name", SHAPES)
def test_it_is_what_the_rules_give(name: str, checkpointing: Recomputed) -> None:
    shape = SHAPES[name]
    for part in (0.125, 0.3, 0.6, 0.9):
        limit = round(part * shape.num_parameters)
        buckets = Buckets(10**8, 10**8, limit, limit, 10**9)
        setting = ON_8_GPUS._replace(buckets=buckets, activation_checkpointing=checkpointing)
        real = follow(shape, buckets, setting.recomputed(len(shape.layers)))
        # The first layers and the embeddings are given back before anything is kept for the backward pass.
        tolerance = shape.head_size + 0.05 * shape.num_parameters
        gathered = shape.num_parameters + num_gathered_again(shape, setting)
        assert gathered == pytest.approx(real.num_gathered, abs=tolerance), part
        at_head = gathered_bytes(shape, setting, len(shape.layers)) / 2
        # The piece that parameters came in is not among those that were followed.
        piece = min(buckets.prefetch, limit)
        assert real.whole_at_head <= at_head + 0.1 * shape.num_parameters, part
        assert at_head <= real.whole_at_head + piece + 0.1 * shape.num_parameters, part


def test_a_small_model_is_whole_when_the_head_runs_and_less_so_with_each_layer() -> None:
    shape = model_shape(all_models()["llama"])
    setting = ON_8_GPUS._replace(num_workers=2)
    sizes = [gathered_bytes(shape, setting, i) for i in range(len(shape.layers) + 1)]
    assert sizes[-1] == 2 * shape.num_parameters
    assert sizes == sorted(sizes)
    assert gathered_bytes(shape, setting._replace(num_workers=1), 1) == 0
