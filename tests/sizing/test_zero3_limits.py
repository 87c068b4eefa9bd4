"""With the limits that are chosen, no layer waits for a part of itself that was not gathered ahead."""

from pathlib import Path

import pytest

from sft.config import SftConfig
from sft.engine.zero3_limits import PartSizes, choose_limits
from sft.job_config import load_job
from sft.recomputed_layers import Recomputed, recomputed_layers
from sft.sizing.model_shape import ModelShape, model_shape
from sft.sizing.setting import Buckets
from tests.sizing.models import LLAMA_8B, LLAMA_70B, all_models

SHAPES = {"8B": model_shape(LLAMA_8B), "70B": model_shape(LLAMA_70B), "mixtral": model_shape(all_models()["mixtral"])}


def load(*overrides: str) -> SftConfig:
    return load_job(Path(__file__).parents[2] / "configs" / "llama3_8b_1node.yaml", overrides).sft


CONFIG = load()


def gathered_late(shape: ModelShape, limits: Buckets, recomputed: range) -> list[int]:
    """For each use of a layer after the first, the elements that it gathers itself: DeepSpeed's rules, by layers."""

    def module(name: str, tensors: dict[str, int]) -> list[tuple[str, int]]:
        return [(f"{name}.{tensor}", size) for tensor, size in tensors.items() if size > limits.persistent]

    layers = [module(str(i), dict(layer.tensors)) for i, layer in enumerate(shape.layers)]
    head = module("" if shape.is_tied else "head", {"embeddings": shape.head_size})
    backward = [[layer] * (2 if i in recomputed else 1) for i, layer in reversed(list(enumerate(layers)))]
    first = module("", {"embeddings": shape.head_size})
    order = [first, *layers, head, head, *sum(backward, []), first]
    queue = [(at, *tensor) for at, tensors in enumerate(order) for tensor in tensors]
    whole: dict[str, int] = {}
    kept_until: dict[str, int] = {}
    late = []
    for at, tensors in enumerate(order):
        late.append(sum(size for name, size in tensors if name not in whole))
        whole |= dict(tensors)
        queue = [use for use in queue if use[0] > at]
        ahead, limit = 0, min(limits.prefetch, limits.live - sum(whole.values()))
        while queue and ahead < limit:
            use, name, size = queue.pop(0)
            kept_until[name] = use
            ahead += 0 if name in whole else size
            whole[name] = size
        passed, again = 0, set()
        for later in order[at + 1 :]:
            if passed >= limits.reuse_distance:
                break
            again |= dict(later).keys()
            passed += sum(size for _, size in later)
        for name, _ in tensors:
            if name not in again and kept_until.get(name, -1) <= at:
                whole.pop(name)
    return late[2:]


@pytest.mark.parametrize("checkpointing", ["all", "none"])
@pytest.mark.parametrize("name", ["8B", "70B"])
def test_layers_are_gathered_ahead_whole(name: str, checkpointing: Recomputed) -> None:
    shape = SHAPES[name]
    recomputed = recomputed_layers(checkpointing, len(shape.layers))
    limits = Buckets.of(CONFIG, shape, 8, between_nodes=False)
    assert sum(gathered_late(shape, limits, recomputed)) == 0
    before = limits._replace(prefetch=10**8, live=10**9)
    assert sum(gathered_late(shape, before, recomputed)) > 0.4 * shape.num_parameters
    less = limits._replace(live=2 * limits.prefetch - max(shape.layers[0].tensors.values()) - 1)
    assert sum(gathered_late(shape, less, recomputed)) > 0, "two layers are needed, but for the last tensor"


def test_known_limits() -> None:
    of_8b, of_70b = (Buckets.of(CONFIG, SHAPES[name], 64, between_nodes=True) for name in ("8B", "70B"))
    assert of_8b == Buckets(10**8, 218_103_808, 10**9, 10**9, 10**9)
    assert of_70b == Buckets(10**8, 855_638_016, 128_256 * 8192 + 855_638_016, 10**9, 10**9)
    assert Buckets.of(CONFIG, SHAPES["mixtral"], 64, True)[:2] == (10**8, 10**8)


def test_the_reduce_bucket_grows_with_the_ranks_between_nodes_alone() -> None:
    sizes = PartSizes(10**8, 10**8)
    buckets = [choose_limits(sizes, num, between_nodes=True).reduce for num in (1, 64, 89, 256, 1024)]
    assert buckets == [10**8, 10**8, 100_125_000, 288_000_000, 500_000_000]
    assert choose_limits(sizes, 1024, between_nodes=False).reduce == 10**8


def test_what_the_config_gives_counts_more() -> None:
    given = "deepspeed.extra={zero_optimization: {stage3_prefetch_bucket_size: 7, stage3_max_live_parameters: 8}}"
    limits = Buckets.of(load(given), SHAPES["70B"], 8, between_nodes=False)
    assert limits[:3] == (10**8, 7, 8)
