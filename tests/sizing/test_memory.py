"""The estimate grows with what costs memory and shrinks with what saves it; and it is what a real step takes."""

import argparse
import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoConfig, AutoModelForCausalLM

from sft.sizing.activations import Numbers
from sft.sizing.host_memory import host_memory
from sft.sizing.memory import device_states, offloaded_states, peak_memory, step_moments
from sft.sizing.model_shape import ModelShape, model_shape
from sft.sizing.setting import Buckets, Setting
from sft.sizing.traffic import step_traffic
from tests.sizing.models import LLAMA_8B, all_models

BUCKETS = Buckets(reduce=10**8, prefetch=10**8, live=10**9, reuse_distance=10**9, sub_group=10**9)
ON_8_GPUS = Setting(
    num_workers=8,
    num_tokens=8192,
    numbers=Numbers(2, on_gpu=True),
    activation_checkpointing="all",
    offload_activations=False,
    logits_chunk_tokens=1024,
    optimizer_bytes=12,
    offload_optimizer=False,
    offload_parameters=False,
    copies_checkpoint=True,
    buckets=BUCKETS,
    num_copy_ranks=1,
)
SHAPES = [model_shape(LLAMA_8B), *map(model_shape, all_models().values())]

settings = st.builds(
    Setting,
    num_workers=st.sampled_from([1, 2, 3, 8, 64]),
    num_tokens=st.integers(1, 1 << 17),
    numbers=st.builds(Numbers, st.sampled_from([2, 4]), st.booleans(), num_parts=st.sampled_from([1, 2, 8])),
    activation_checkpointing=st.sampled_from(["none", "all", 2, 3, 0.25, 0.5]),
    offload_activations=st.booleans(),
    logits_chunk_tokens=st.integers(1, 4096),
    optimizer_bytes=st.sampled_from([8, 12]),
    offload_optimizer=st.booleans(),
    offload_parameters=st.booleans(),
    copies_checkpoint=st.booleans(),
    buckets=st.builds(Buckets, *[st.integers(10_000, 10**9)] * 5),
    num_copy_ranks=st.sampled_from([1, 2, 4]),
)
shapes = st.sampled_from(SHAPES)


def total(shape: ModelShape, setting: Setting) -> int:
    return peak_memory(shape, setting).total


@given(shapes, settings)
def test_no_part_is_negative_and_the_peak_is_the_largest_moment(shape: ModelShape, setting: Setting) -> None:
    moments = list(step_moments(shape, setting))
    assert all(min((*moment.states, *moment[2:])) >= 0 for moment in moments)
    assert total(shape, setting) == max(moment.total for moment in moments)


@given(shapes, settings, st.integers(1, 10_000))
def test_more_tokens_never_take_less(shape: ModelShape, setting: Setting, more: int) -> None:
    assert total(shape, setting._replace(num_tokens=setting.num_tokens + more)) >= total(shape, setting)


@given(shapes, settings, st.integers(1, 64))
def test_more_workers_have_smaller_parts(shape: ModelShape, setting: Setting, more: int) -> None:
    larger_group = setting._replace(num_workers=setting.num_workers + more)
    assert sum(device_states(shape, larger_group)) <= sum(device_states(shape, setting))
    if setting.num_workers > 1:  # one worker alone gathers nothing
        assert total(shape, larger_group) <= total(shape, setting)


@given(shapes, settings)
def test_offloading_moves_states_from_the_gpu_to_the_host(shape: ModelShape, setting: Setting) -> None:
    setting = setting._replace(numbers=Numbers(2, on_gpu=True), offload_optimizer=False, offload_parameters=False)
    offloaded = setting._replace(offload_optimizer=True)
    assert total(shape, offloaded) <= total(shape, setting)
    assert host_memory(shape, offloaded).total > host_memory(shape, setting).total
    assert sum(device_states(shape, offloaded)) == device_states(shape, setting).parameters
    # Gradients are there twice: the sum over micro-batches, and what the update reads.
    more = device_states(shape, setting).gradients
    assert sum(offloaded_states(shape, offloaded)) == sum(device_states(shape, setting)[1:]) + more


@given(st.sampled_from([8192, 65536]), st.sampled_from([1, 8]))
def test_checkpointing_saves_what_all_layers_but_one_keep(num_tokens: int, num_workers: int) -> None:
    shape = SHAPES[0]
    setting = ON_8_GPUS._replace(num_tokens=num_tokens, num_workers=num_workers)
    saved = total(shape, setting._replace(activation_checkpointing="none")) - total(shape, setting)
    # 201 kB a token and layer are kept; 8 kB are the layer's input.
    assert saved == pytest.approx(31 * 200_848 * num_tokens - 32 * 8192 * num_tokens, rel=0.1)


def test_zero3_keeps_18_bytes_a_parameter() -> None:
    shape = SHAPES[0]
    assert sum(device_states(shape, ON_8_GPUS._replace(num_workers=1))) == 18 * shape.num_parameters
    assert sum(device_states(shape, ON_8_GPUS)) == pytest.approx(18 * shape.num_parameters / 8, rel=1e-6)


def test_the_parts_of_a_large_model_are_where_they_are_expected() -> None:
    """Llama 3 8B: worked out by hand from its shape."""
    gib = 1024**3
    memory = peak_memory(SHAPES[0], ON_8_GPUS)
    assert memory.when == "gradients of the layers"
    assert sum(memory.states) / gib == pytest.approx(18 * 8.03e9 / 8 / gib, rel=0.001)
    # Inputs of 32 layers, and all of one: norms 49,168, their outputs 16,384, attention 20,608, MLP 114,688 a token.
    assert memory.activations == 8192 * (32 * 2 * 4096 + 200_848)
    # The head's gradient (525 M) is larger than the bucket: as it was made, and in float32.
    assert memory.reduction == 4 * 100_000_000 + (2 + 4) * 525_336_576 + 2 * 4096 * 14336


@given(shapes, settings, st.integers(1, 8))
def test_traffic_is_that_of_the_other_workers_parts(shape: ModelShape, setting: Setting, micro_batches: int) -> None:
    traffic = step_traffic(shape, setting, micro_batches)
    others = (setting.num_workers - 1) / setting.num_workers * micro_batches
    assert traffic.reduced == pytest.approx(4 * others * shape.num_parameters, abs=1)
    once = setting.numbers.num_bytes * others * shape.num_parameters
    assert once - 1 <= traffic.gathered <= 2 * once + 1
    if setting.num_workers == 1:
        assert traffic.gathered == traffic.reduced == 0
    assert (traffic.exchanged == 0) == (setting.sequence_parallel == 1)


def test_a_small_model_is_gathered_once_and_a_large_one_twice() -> None:
    small, large = model_shape(all_models()["llama"]), SHAPES[0]
    for shape, times in ((small, 1.0), (large, 1.875)):
        traffic = step_traffic(shape, ON_8_GPUS, 1)
        assert traffic.gathered == pytest.approx(times * 2 * 7 / 8 * shape.num_parameters, rel=0.01)


def test_a_shared_copy_of_the_parameters_is_on_the_workers_that_share_it() -> None:
    shape = SHAPES[0]
    for offloaded, states in ((False, device_states), (True, offloaded_states)):
        setting = ON_8_GPUS._replace(offload_parameters=offloaded)
        copied = states(shape, setting._replace(num_copy_ranks=4)).parameters - states(shape, setting).parameters
        assert copied == 2 * -(-shape.num_held // 4)


def test_the_only_micro_batchs_gradients_are_there_from_its_backward_pass_on() -> None:
    """Of a float32 model on one worker, which needs no sum of them."""
    one = ON_8_GPUS._replace(num_workers=1, numbers=Numbers(4, on_gpu=True), is_plain=True, is_one_micro_batch=True)
    several, shape = one._replace(is_one_micro_batch=False), SHAPES[0]
    gradients = 4 * shape.num_parameters
    assert device_states(shape, several).gradients == gradients
    assert device_states(shape, one) == device_states(shape, several)._replace(gradients=0)
    moments = [{m.when: m.total for m in step_moments(shape, setting)} for setting in (one, several)]
    assert moments[1]["end of the forward pass"] - moments[0]["end of the forward pass"] == gradients
    assert moments[1]["update"] == moments[0]["update"]


@pytest.mark.long
def test_a_real_step_takes_what_is_estimated(monkeypatch: pytest.MonkeyPatch) -> None:
    """The benchmark's own measurement, of a model that is small enough for a test."""
    path = Path(__file__).parents[2] / "benchmarks" / "memory.py"
    spec = importlib.util.spec_from_file_location("memory_benchmark", path)
    assert spec is not None
    assert spec.loader is not None
    benchmark: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)

    def write_models(case: Any, folder: Path) -> None:
        """Here, where all that it takes is imported."""
        for name, content in benchmark.models_of(case).items():
            config = AutoConfig.for_model(**content)
            AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(folder / name)

    monkeypatch.setattr(benchmark, "write_models", write_models)
    case = benchmark.Case("Llama, small", 1, 1024, 1, 0.5)
    measured = benchmark.measure(case, argparse.Namespace(gpu=False, allocator=False))["peak"]
    shape = model_shape(benchmark.MODELS[case.model])
    setting = Setting.of(benchmark.build_config(case, Path()), 0, 1, False, shape)
    estimate = peak_memory(shape, setting).total
    assert estimate == pytest.approx(measured, rel=0.1)
