"""A run that was stopped and resumed equals one that was not: at its own world size and at any other."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from sft.config import SftConfig
from sft.engine.engines import BuildEngine
from sft.engine.plain import PlainEngine
from sft.engine.single_process import SingleProcessEngine
from sft.ranks.ranks import OneRank
from sft.world import World
from tests.distributed.launch import run_ranks
from tests.distributed.scenarios import build_loader, load, take_steps

SAVED_AT, NUM_STEPS = 2, 4


@pytest.fixture(scope="module")
def straight(workload: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Two ranks from the first step to the last, with a checkpoint in the middle."""
    settings = {
        **workload,
        "folder": str(tmp_path_factory.mktemp("straight")),
        "saved_at": SAVED_AT,
        "num_steps": NUM_STEPS,
    }
    return {"settings": settings, **run_ranks(2, "train_save_export", settings)}


def test_zero3_and_the_oracle_follow_the_pinned_trajectory(
    workload: dict[str, Any], straight: dict[str, Any], trajectory: list[list[float]]
) -> None:
    config = SftConfig.model_validate(workload["config"])
    engine = SingleProcessEngine(config, config.stages[0].optimizer, config.model.path)
    oracle = take_steps(engine, config, build_loader(workload, World()), 0, len(trajectory))
    assert oracle == [pytest.approx(step, rel=1e-4) for step in trajectory]
    assert straight["steps"] == [pytest.approx(step, rel=1e-4) for step in trajectory[:NUM_STEPS]]


def test_resumed_at_the_same_size_is_equal_bit_for_bit(straight: dict[str, Any]) -> None:
    resumed = run_ranks(2, "resume", straight["settings"])
    assert resumed["steps"] == straight["steps"][SAVED_AT:]
    assert resumed["differences"] == {"master": 0.0, "exp_avg": 0.0, "exp_avg_sq": 0.0}


@pytest.mark.parametrize("world_size", [1, 3])
def test_resumed_at_another_size_is_equal_to_rounding(straight: dict[str, Any], world_size: int) -> None:
    resumed = run_ranks(world_size, "resume", straight["settings"])
    assert resumed["steps"] == [pytest.approx(step, rel=1e-5) for step in straight["steps"][SAVED_AT:]]
    assert max(resumed["differences"].values()) < 1e-4


@pytest.mark.long
def test_in_bfloat16_too_resumed_is_equal_bit_for_bit(workload: dict[str, Any], tmp_path: Path) -> None:
    """With float32 masters beside the working copies, and activations computed again."""
    content = copy.deepcopy(workload["config"])
    content["model"]["dtype"] = "bfloat16"
    content["train"]["activation_checkpointing"] = True
    settings = {**workload, "config": content, "folder": str(tmp_path), "saved_at": 1, "num_steps": 3}
    straight = run_ranks(2, "train_save_export", settings)
    resumed = run_ranks(2, "resume", settings)
    assert resumed["steps"] == straight["steps"][1:]
    assert resumed["differences"] == {"master": 0.0, "exp_avg": 0.0, "exp_avg_sq": 0.0}
    assert alone(PlainEngine, settings) == [pytest.approx(step, rel=1e-2) for step in straight["steps"][1:]]
    weights = load_file(tmp_path / "model" / "model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.bfloat16}


@pytest.mark.parametrize("build", [PlainEngine, SingleProcessEngine])
def test_one_worker_resumes_from_zero3s_checkpoint(build: BuildEngine, straight: dict[str, Any]) -> None:
    assert alone(build, straight["settings"]) == [
        pytest.approx(step, rel=1e-4) for step in straight["steps"][SAVED_AT:]
    ]


def alone(build: BuildEngine, settings: dict[str, Any]) -> list[list[float]]:
    """The steps of one worker from the checkpoint on."""
    config = SftConfig.model_validate(settings["config"])
    engine = build(config, config.stages[0].optimizer, config.model.path, OneRank(), awaits_state=True)
    load(engine, Path(settings["folder"]) / "checkpoints")
    return take_steps(engine, config, build_loader(settings, World()), settings["saved_at"], settings["num_steps"])


def test_the_exported_models_logits_equal_the_engines(workload: dict[str, Any], straight: dict[str, Any]) -> None:
    """Loaded by plain transformers, one example at a time with its own attention, the model gives the same nll."""
    folder = Path(straight["settings"]["folder"]) / "model"
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    loader = build_loader(workload, World(0, 2))
    found = []
    for example_id in loader.micro_batches(0)[0].example_ids:
        example = loader.store.example(example_id)
        input_ids = torch.from_numpy(example.input_ids.astype("int64"))[None]
        with torch.no_grad():
            log_probs = model(input_ids).logits[0].log_softmax(-1)
        targets = torch.from_numpy(example.loss_mask).nonzero().squeeze(1)
        found.append(-float(log_probs[targets - 1, input_ids[0, targets]].double().sum()))
    assert found == pytest.approx(straight["nll"], rel=1e-4)
