"""Which parameters are gathered again is what DeepSpeed's rule says, followed module by module."""

import pytest

from sft.sizing.gathering import gathered_bytes, num_gathered_again
from sft.sizing.model_shape import ModelShape, model_shape
from sft.sizing.setting import Buckets, Setting
from tests.sizing.models import LLAMA_8B, all_models
from tests.sizing.test_memory import ON_8_GPUS

SHAPES = {
    "small": model_shape({**all_models()["llama"], "num_hidden_layers": 12}),
    "tied": model_shape({**all_models()["llama, tied"], "num_hidden_layers": 12}),
    "8B": model_shape(LLAMA_8B),
}


def gathered_again(shape: ModelShape, reuse_distance: int, checkpointing: bool) -> int:
    """By the order of uses: a module's parameters are given back unless they come again before so many others."""
    head = ("embeddings" if shape.is_tied else "head", shape.head_size)
    layers = [(str(i), layer.num_parameters) for i, layer in enumerate(shape.layers)]
    first = ("embeddings", shape.head_size)
    backward = [use for layer in reversed(layers) for use in [layer] * (2 if checkpointing else 1)]
    uses = [first, *layers, head, head, *backward, first]
    again = 0
    there: set[str] = set()
    for i, (name, size) in enumerate(uses):
        if i > len(layers) + 1 and name not in there:
            again += size
        there.add(name)
        passed, is_kept = 0, False
        for later, other in uses[i + 1 :]:
            if passed >= reuse_distance:
                break
            is_kept = is_kept or later == name
            passed += other
        if not is_kept:
            there.discard(name)
    return again


@pytest.mark.parametrize("checkpointing", [True, False])
@pytest.mark.parametrize("name", SHAPES)
def test_it_is_what_the_order_of_uses_gives(name: str, checkpointing: bool) -> None:
    shape = SHAPES[name]
    for part in (0.0, 0.3, 0.6, 1.0, 1.5, 2.0, 3.0, 4.0):
        # At least a layer: what is computed again is used backward at once.
        distance = max(round(part * shape.num_parameters), shape.layers[0].num_parameters)
        buckets = Buckets(10**8, 10**6, distance, 10**9)
        setting = ON_8_GPUS._replace(buckets=buckets, activation_checkpointing=checkpointing)
        real = gathered_again(shape, distance, checkpointing)
        # A layer that is used at the very end of the distance stays; the embeddings wait longest of all.
        tolerance = 2 * shape.layers[0].num_parameters + shape.head_size
        assert num_gathered_again(shape, setting) == pytest.approx(real, abs=tolerance), part


def test_a_small_model_is_whole_when_the_head_runs_and_less_so_with_each_layer() -> None:
    shape = SHAPES["small"]
    setting: Setting = ON_8_GPUS._replace(num_workers=2)
    sizes = [gathered_bytes(shape, setting, i) for i in range(len(shape.layers) + 1)]
    assert sizes[-1] == 2 * shape.num_parameters
    assert sizes == sorted(sizes)
    assert gathered_bytes(shape, setting._replace(num_workers=1), 5) == 0
