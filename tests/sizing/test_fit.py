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
