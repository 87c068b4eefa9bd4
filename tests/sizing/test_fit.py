"""What fits, how large a micro-batch may be, and what is advised where a stage does not fit."""

import json
from pathlib import Path
from typing import Any, get_args

import pytest

from sft.job_config import JobConfig, load_job
from sft.sizing.advice import advise
from sft.sizing.fit import GIB, Job, largest_packs_per_micro_batch
from sft.sizing.forecast import Hardware, forecast
from sft.sizing.gpus import GPUS, GpuKind
from sft.sizing.model_shape import model_shape
from sft.sizing.nodes import Nodes
from sft.sizing.traffic import step_traffic
from tests.sizing.models import LLAMA_8B

CONFIGS = Path(__file__).parents[2] / "configs"
SHAPE = model_shape(LLAMA_8B)
NODES = Nodes(8, None, None, None, 0)


def load(*overrides: str) -> JobConfig:
    return load_job(CONFIGS / "llama3_8b_1node.yaml", overrides)


def job(*overrides: str, workers: int = 8) -> Job:
    return Job(load(*overrides).sft, SHAPE, 0, workers)


def test_every_kind_of_gpu_has_a_row() -> None:
    assert set(GPUS) == set(get_args(GpuKind))
    assert all(gpu.memory_gib > 0 and gpu.teraflops > 0 and gpu.source for gpu in GPUS.values())


@pytest.mark.parametrize("gib", [24, 32, 48, 80])
def test_the_largest_micro_batch_fits_and_the_next_does_not(gib: int) -> None:
    asked = job("train.packs_per_step=512")
    most = largest_packs_per_micro_batch(asked, gib * GIB)
    for packs, fits in ((most, True), (most + 1, False)):
        if 1 <= packs <= asked.packs_per_worker:
            assert (asked.having("train", packs_per_micro_batch=packs).num_bytes <= gib * GIB) == fits
    assert most == sum(
        asked.having("train", packs_per_micro_batch=packs).num_bytes <= gib * GIB
        for packs in range(1, asked.packs_per_worker + 1)
    )


def test_nothing_is_advised_where_it_fits() -> None:
    assert list(advise(job(), 80 * GIB)) == []


@pytest.mark.parametrize("workers", [1, 2, 8])
@pytest.mark.parametrize("gib", [16, 24, 40])
def test_what_is_advised_needs_as_much_as_is_said(gib: int, workers: int) -> None:
    wasteful = ("train.activation_checkpointing=false", "train.packs_per_micro_batch=4", "data.max_len_tokens=1024")
    asked = job(*wasteful, workers=workers)
    changes = list(advise(asked, gib * GIB))
    assert changes[0].setting == "train.activation_checkpointing=all"
    together: list[str] = []
    for change in changes:
        is_cheap = change.setting.startswith("train.")
        settings = change.setting.split()
        num_workers = workers
        if settings[0].startswith("cluster.workers="):
            num_workers = int(settings.pop(0).partition("=")[2])
        settings = [f"train.{s}" if s.startswith("pack_len_tokens") else s for s in settings]
        if is_cheap:
            together += settings
        applied = job(*wasteful, *together, *([] if is_cheap else settings), workers=num_workers)
        assert applied.num_bytes == change.num_bytes, change
    cheap = [change.num_bytes for change in changes if change.setting.startswith("train.")]
    assert cheap == sorted(cheap, reverse=True)
    # The dear ones are told only where the cheap ones are not enough.
    assert (cheap[-1] > gib * GIB) == (len(changes) > len(cheap))


def test_time_and_cost_follow_from_flops() -> None:
    counts: dict[str, Any] = {"min_workers": 8, "max_workers": 8, "has_gpus": True, "gpu": "h100-80gb"}
    hardware = Hardware(**counts, expected_mfu=0.5, price_per_gpu_hour=2.0, nodes=NODES)
    config = load("stages.broad.budget={steps: 1000}", f"model.path={Path(__file__).parent}/none").sft
    assert forecast(config, hardware).stages[0].seconds is None  # there is no model


def test_time_is_that_of_the_busiest_worker(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(LLAMA_8B))
    config = load("stages.broad.budget={steps: 1000}", f"model.path={tmp_path}", "train.packs_per_step=12").sft

    def seconds(workers: int) -> float:
        found = forecast(config, Hardware(workers, workers, True, "h100-80gb", 0.5, 2.0, NODES)).stages[0]
        assert found.seconds is not None
        assert found.cost == pytest.approx(found.seconds / 3600 * workers * 2.0)
        return found.seconds

    # 12 packs: three on each of 4 workers, at most two on each of 8, one on each of 12.
    assert seconds(4) == pytest.approx(3 * seconds(12))
    assert seconds(8) == pytest.approx(2 * seconds(12))


def test_long_packs_fit_where_workers_share_them() -> None:
    """131,072 tokens a pack, Llama 3 of 8B, 8 GPUs of 80 GB."""
    long = ("train.pack_len_tokens=131072", "data.max_len_tokens=131072", "train.packs_per_micro_batch=1")
    asked, capacity = job(*long, "train.activation_checkpointing=all"), round(GPUS["h100-80gb"].memory_gib * GIB)
    assert asked.num_bytes > capacity
    (change,) = advise(asked, capacity)
    assert change.setting == "train.sequence_parallel=2"
    sizes = [job(*long, f"train.sequence_parallel={n}") for n in (1, 2, 4, 8)]
    needed = [shared.num_bytes for shared in sizes]
    assert needed == sorted(needed, reverse=True)
    assert needed[-1] < capacity / 2
    assert [shared.setting.num_tokens for shared in sizes] == [131072 // n for n in (1, 2, 4, 8)]


def test_what_ranks_exchange_is_what_attention_needs() -> None:
    """Queries, keys, values and outputs, to all other ranks of the group: forward, again, backward."""
    shared = job("train.sequence_parallel=4", "train.activation_checkpointing=all", "train.packs_per_micro_batch=1")
    width = 2 * 4096 + 2 * 1024
    num_tokens = shared.config.train.pack_len_tokens // 4
    assert step_traffic(SHAPE, shared.setting, 3).exchanged == 3 * 32 * 3 * 2 * width * num_tokens * 3 // 4
    more = shared.having("train", sequence_parallel=16)
    # 8 heads of keys for 16 workers: each is sent twice.
    width += 2 * 1024
    assert step_traffic(SHAPE, more.setting, 1).exchanged == 32 * 3 * 2 * width * (num_tokens // 4) * 15 // 16


@pytest.mark.parametrize(("per_node", "is_told"), [(8, False), (4, False), (2, True), (3, True)])
def test_workers_that_share_packs_between_nodes_are_told_of(tmp_path: Path, per_node: int, is_told: bool) -> None:
    (tmp_path / "config.json").write_text(json.dumps(LLAMA_8B))
    config = load(f"model.path={tmp_path}", "train.sequence_parallel=4").sft
    hardware = Hardware(8, 8, True, "h100-80gb", 0.5, 2.0, Nodes(per_node, None, None, 50.0, 0))
    found = forecast(config, hardware)
    assert any("waits for it" in finding for finding in found.findings) == is_told
    network = found.stages[0].communication
    assert (network is not None and network.exchanging > 0) == is_told
