"""hpZ: the copies of the parameters that groups of ranks keep are those of the model that is trained."""

import copy
from pathlib import Path
from typing import Any

import pytest

from tests.distributed.launch import run_ranks

SAVED_AT, NUM_STEPS, NUM_RANKS = 2, 3, 4
# Else parameters as small as ours would stay gathered, and no copy be made.
GIVE_BACK = {"stage3_param_persistence_threshold": 100, "stage3_max_live_parameters": 0, "stage3_max_reuse_distance": 0}


def with_hpz(workload: dict[str, Any], folder: Path) -> dict[str, Any]:
    content = copy.deepcopy(workload["config"])
    content["deepspeed"] = {"hpz_partition_size": 2, "extra": {"zero_optimization": GIVE_BACK}}
    return {**workload, "config": content, "folder": str(folder), "saved_at": SAVED_AT, "num_steps": NUM_STEPS}


@pytest.fixture(scope="module")
def straight(workload: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Any:
    settings = with_hpz(workload, tmp_path_factory.mktemp("hpz"))
    return {"settings": settings, **run_ranks(NUM_RANKS, "train_save_export", settings)}


def test_a_run_with_copies_follows_the_pinned_trajectory(straight: Any, trajectory: list[list[float]]) -> None:
    # Each rank has its half of a copy of the model, but for what is too small to be split.
    [path] = Path(straight["settings"]["folder"], "model").glob("*.safetensors")
    num_parameters = path.stat().st_size / 4
    assert straight["num_copied"] == pytest.approx(num_parameters / 2, rel=0.05)
    assert straight["steps"] == [pytest.approx(step, rel=1e-4) for step in trajectory[:NUM_STEPS]]


@pytest.mark.long
def test_what_is_loaded_is_what_is_trained_on(straight: Any) -> None:
    """Copies that were made before the loading would give the loss of the model before the training."""
    resumed = run_ranks(NUM_RANKS, "resume", straight["settings"])
    assert resumed["steps"] == straight["steps"][SAVED_AT:]
    assert resumed["differences"] == {"master": 0.0, "exp_avg": 0.0, "exp_avg_sq": 0.0}


@pytest.mark.long
def test_a_step_that_is_not_finite_leaves_the_copies_right(workload: dict[str, Any], tmp_path: Path) -> None:
    found = run_ranks(NUM_RANKS, "not_finite", with_hpz(workload, tmp_path))
    assert [step for step, _, _ in found["errors"]] == [1, 3]
    assert found["equal"]
