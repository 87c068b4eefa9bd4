"""What `auto` chooses fits, wastes nothing, and gets no worse with more memory."""

import itertools
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sft.config import SftConfig
from sft.job_config import load_job
from sft.recomputed_layers import Recomputed, packs_or_one, recomputed_layers
from sft.sizing.choice import USED_SHARE, Gpus, ladder, more_arithmetic, options, settle
from sft.sizing.fit import GIB, Job
from sft.sizing.model_shape import ModelShape, model_shape
from tests.sizing.models import LLAMA_8B, QWEN_0_5B

CONFIG = Path(__file__).parents[2] / "configs" / "llama3_8b_1node.yaml"
AUTO = ("train.packs_per_micro_batch=auto", "train.activation_checkpointing=auto")
SHAPES = {"8B": model_shape(LLAMA_8B), "0.5B": model_shape(QWEN_0_5B)}


@cache
def load(*overrides: str) -> SftConfig:
    return load_job(CONFIG, overrides).sft


def chosen(config: SftConfig, shape: ModelShape, gpus: Gpus) -> tuple[int, int, Job]:
    """Packs, recomputed layers, and the job that has them."""
    job = Job(settle(config, shape, 0, gpus), shape, 0, gpus.num_workers)
    layers = len(job.setting.recomputed(len(shape.layers)))
    return packs_or_one(job.config.train.packs_per_micro_batch), layers, job


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("workers", [1, 3, 8])
def test_more_memory_never_means_fewer_packs_or_more_recomputation(name: str, workers: int) -> None:
    packs, layers = 0, len(SHAPES[name].layers)
    for gib in (8, 24, 40, 64, 70, 80, 100, 141, 180, 400):
        more, fewer, job = chosen(load(*AUTO), SHAPES[name], Gpus(workers, gib * GIB))
        assert more >= packs
        assert fewer <= layers
        assert job.num_bytes <= USED_SHARE * gib * GIB or (more, fewer) == (1, len(SHAPES[name].layers))
        packs, layers = more, fewer


@pytest.mark.parametrize("given_", [AUTO, (AUTO[0], "train.activation_checkpointing=2"), AUTO[1:]])
def test_each_rung_needs_more_memory_than_the_one_below(given_: tuple[str, ...]) -> None:
    """But for the input of the last layer: it is the first to run backward, and need not be computed again."""
    for shape in SHAPES.values():
        job = Job(load(*given_, "train.packs_per_step=64"), shape, 0, 4)
        of_input = 1.05 * 2 * 8192 * shape.hidden_size
        rungs = [
            job.having("train", packs_per_micro_batch=packs, activation_checkpointing=layers).num_bytes
            for packs, layers in ladder(job, 8192)
        ]
        assert all(above >= below - of_input for below, above in itertools.pairwise(rungs))


def test_the_next_rung_would_not_fit() -> None:
    capacity = 64 * GIB
    packs, layers, job = chosen(load(*AUTO), SHAPES["8B"], Gpus(8, capacity))
    assert packs == 2  # 8,192 tokens keep the GPUs of a node busy
    in_a_node = layers
    packs, layers, job = chosen(load(*AUTO), SHAPES["8B"], Gpus(8, capacity, between_nodes=True))
    assert packs == 4  # 16,384 hide what goes between nodes
    assert 0 < in_a_node < layers < 32
    fewer = job.having("train", activation_checkpointing=(layers - 1) / 32)
    assert fewer.num_bytes > USED_SHARE * capacity


def test_what_is_given_stays_and_without_knowledge_it_is_as_on_a_cpu() -> None:
    for gpus in (Gpus(8, 80 * GIB), Gpus(8, None)):
        recomputes = "train.activation_checkpointing=all"
        assert settle(load(recomputes), SHAPES["8B"], 0, gpus) == load(recomputes)
        one = settle(load(AUTO[0], recomputes), SHAPES["8B"], 0, gpus).train
        assert one.activation_checkpointing == "all"
        other = settle(load(AUTO[1]), SHAPES["8B"], 0, gpus).train
        assert other.packs_per_micro_batch == 2
    unknown = settle(load(*AUTO), None, 0, Gpus(8, 80 * GIB)).train
    assert (unknown.packs_per_micro_batch, unknown.activation_checkpointing) == (1, "all")


def test_dropout_is_drawn_for_each_pack_by_itself() -> None:
    packs, layers, _ = chosen(load(*AUTO, "model.dropout=as_configured"), SHAPES["0.5B"], Gpus(1, 80 * GIB))
    assert (packs, layers) == (1, 0)


@given(st.integers(1, 40), st.integers(1, 64))
@settings(max_examples=20)
def test_no_other_number_of_packs_would_take_fewer_passes(packs_per_step: int, workers: int) -> None:
    job = Job(load(*AUTO, f"train.packs_per_step={packs_per_step}"), SHAPES["0.5B"], 0, workers)
    whole = job.packs_per_worker
    counts = {packs for packs, _ in ladder(job, 8192)}
    for packs in range(1, whole + 1):
        passes = -(-whole // packs)
        assert min(c for c in range(1, whole + 1) if -(-whole // c) == passes) in counts


def test_the_options_are_what_they_cost() -> None:
    job = Job(settle(load(*AUTO), SHAPES["8B"], 0, Gpus(8, 80 * GIB, between_nodes=True)), SHAPES["8B"], 0, 8)
    ways = options(job, 80 * GIB)
    assert sum(way.is_taken for way in ways) == 1
    inside = [way for way in ways if not way.host_bytes]
    assert [way.num_bytes for way in inside] == sorted((way.num_bytes for way in inside), reverse=True)
    assert more_arithmetic(SHAPES["8B"], range(32)) == pytest.approx(1 / 3, rel=0.08)
    offloaded = ways[-1]
    # The inputs of 32 layers: 4 packs of 4,096 tokens, 4,096 bfloat16 numbers each.
    assert offloaded.host_bytes == 32 * 16384 * 4096 * 2
    assert inside[-1].num_bytes > offloaded.num_bytes


@pytest.mark.parametrize(
    ("choice", "layers"),
    [
        ("none", []),
        ("all", [0, 1, 2, 3, 4, 5, 6]),
        (1, [0, 1, 2, 3, 4, 5, 6]),
        (3, [0, 3, 6]),
        (9, [0]),
        (0.5, [0, 1, 2, 3]),
    ],
)
def test_layers_are_named_by_distance_or_by_share(choice: Recomputed, layers: list[int]) -> None:
    assert list(recomputed_layers(choice, 7)) == layers
    assert all(len(recomputed_layers(n / 126, 126)) == n for n in range(1, 127))
