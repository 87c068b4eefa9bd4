"""The device is the one that the launcher has given, whatever torch sees."""

import os
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from deepspeed.utils.config import get_timers_config

from sft.config import SftConfig
from sft.engine.zero3_config import build_zero3_config, num_copy_ranks
from sft.training.__main__ import main, with_device
from sft.training.peak_memory import read_peaks, reset_peaks
from sft.training.workload import prepare_workload
from sft.world import World
from tests.conftest import SmallRecords
from tests.distributed.launch import run_ranks
from tests.jobs import two_stage_job

SMALL = {
    "run": {"name": "a", "dir": "a"},
    "model": {"path": "m"},
    "data": {"sources": [{"name": "a", "path": "a.jsonl"}]},
    "stages": [{"name": "s", "budget": {"steps": 1}, "optimizer": {"lr": 1e-3}}],
}


def test_a_rank_on_cpus_trains_beside_a_gpu_that_it_never_asks_for(
    tiny_model_dir: Path, small_records: SmallRecords, tmp_path: Path
) -> None:
    content = two_stage_job("cpu", tmp_path, tiny_model_dir, small_records, {"broad": 2, "words": 1})
    prepared, _store, _plans = prepare_workload(SftConfig.model_validate(content))
    assert run_ranks(1, "beside_a_gpu", {"jobs": [[content, prepared.as_json()]]}) == [True]


def test_only_who_starts_ranks_or_looks_at_a_machine_asks_torch_what_there_is() -> None:
    """The config decides elsewhere. A chat and the check of an export take what the user's own machine has."""
    root = Path(__file__).parents[2]
    asking = {
        str(path.relative_to(root))
        for package in ("sft", "launcher")
        for path in (root / package).rglob("*.py")
        if re.search(r"cuda\.(is_available|device_count|current_device)\(", path.read_text(encoding="utf-8"))
    }
    on_nodes = {"sft/training/__main__.py", "launcher/preflight/node_facts.py"}
    assert asking == {*on_nodes, "launcher/chat/opening.py", "launcher/exporting.py"}


def test_tests_see_no_gpu() -> None:
    assert not torch.cuda.is_available()


def test_under_torchrun_a_rank_without_a_gpu_of_its_own_is_refused_in_words(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Two ranks on a machine with one GPU, as torch would see it; and one on a machine without any."""
    config = tmp_path / "job.yaml"
    config.write_text(yaml.safe_dump({**SMALL, "cluster": {"gpus_per_worker": 1}}))
    for num_ranks, num_gpus in ((2, 1), (1, 0)):
        monkeypatch.setattr(torch.cuda, "device_count", lambda found=num_gpus: found)
        for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"):
            monkeypatch.setenv(name, str(num_ranks))
        assert main([str(config)]) == 2
        said = capfd.readouterr().err
        assert f"torchrun starts {num_ranks} ranks with a GPU each (cluster.gpus_per_worker: 1), but torch" in said
        assert f"sees {num_gpus} GPUs" in said


def test_under_torchrun_too_the_config_decides_and_not_what_torch_sees(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3")
    world = World(3, 4, 3, "here", 4)
    assert with_device(world, wants_gpu=True) == replace(world, device="cuda:3")
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "0,1,2,3"
    assert with_device(world, wants_gpu=False) == world
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "", "no library finds one"
    assert capfd.readouterr().err == ""
    with_device(replace(world, rank=0), wants_gpu=False)
    assert "Training on CPUs (cluster.gpus_per_worker: 0): here has 4 GPUs" in capfd.readouterr().err


@pytest.mark.parametrize("device", ["cpu", "cuda:3"])
def test_deepspeeds_config_is_that_of_the_device(device: str) -> None:
    content = {**SMALL, "deepspeed": {"offload_optimizer": "cpu"}}
    world = World(device=device)
    zero = build_zero3_config(SftConfig.model_validate(content), 1.0, world)["zero_optimization"]
    assert world.on_gpu == zero["overlap_comm"] == zero["offload_optimizer"]["pin_memory"] == (device != "cpu")


def test_deepspeed_measures_no_throughput_for_which_it_would_wait_at_every_forward_pass() -> None:
    built = build_zero3_config(SftConfig.model_validate(SMALL), 1.0, World())
    assert not get_timers_config(built).enabled


@pytest.mark.parametrize(
    ("num_ranks", "device", "checkpointing", "offload", "is_needed"),
    [
        (2, "cuda", False, "none", True),
        (2, "cuda", True, "none", False),
        (1, "cuda", False, "none", False),
        (1, "cuda", False, "cpu", True),
        (1, "cpu", False, "cpu", False),
    ],
)
def test_deepspeeds_own_linear_is_for_weights_that_are_gathered_and_kept(
    num_ranks: int, device: str, checkpointing: bool, offload: str, is_needed: bool
) -> None:
    of_deepspeed, of_train = {"offload_parameters": offload}, {"activation_checkpointing": checkpointing}
    config = SftConfig.model_validate({**SMALL, "deepspeed": of_deepspeed, "train": of_train})
    zero = build_zero3_config(config, 1.0, World(0, num_ranks, device=device))["zero_optimization"]
    assert zero["memory_efficient_linear"] == is_needed


@pytest.mark.parametrize(
    ("wanted", "world_size", "size"), [(1, 64, 1), (8, 64, 8), (8, 60, 4), (8, 8, 1), (8, 4, 1), (8, 7, 1)]
)
def test_copies_are_shared_by_groups_of_one_size_and_by_fewer_than_all(wanted: int, world_size: int, size: int) -> None:
    assert num_copy_ranks(wanted, world_size) == size


def test_peaks_are_counted_anew_from_each_reset_on() -> None:
    world = World()
    reset_peaks(world)
    before = read_peaks(world).resident
    held = bytearray(b"x" * 300 * 2**20)
    with_it = read_peaks(world)
    assert with_it.resident - before > 0.25
    assert (with_it.allocated, with_it.reserved) == (None, None)
    assert with_it.of_training == with_it.resident
    del held
    reset_peaks(world)
    assert read_peaks(world).resident < with_it.resident - 0.25
