"""The gradient does not depend on ranks × micro-batches × accumulation; loss and norm are pinned in a file."""

from pathlib import Path
from typing import Any

import pytest
import torch

from sft.config import SftConfig
from sft.engine.single_process import SingleProcessEngine
from sft.world import World
from tests.distributed.launch import run_ranks
from tests.distributed.scenarios import build_loader, take_steps, whole_state

TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def oracle_gradient(workload: dict[str, Any]) -> torch.Tensor:
    config = SftConfig.model_validate(workload["config"])
    engine = SingleProcessEngine(config, config.stages[0].optimizer, config.model.path)
    take_steps(engine, config, build_loader(workload, World()), 0, 1)
    return whole_state(engine, "exp_avg") / (1 - config.stages[0].optimizer.betas[0])


@pytest.mark.parametrize(
    ("world_size", "packs_per_micro_batch", "num_micro_batches"),
    [
        pytest.param(1, [6, 1], [1, 6], id="one rank: all at once, and one pack at a time"),
        pytest.param(2, [3, 2], [1, 2], id="two ranks: at once, and micro-batches of 2, which do not divide 3"),
        pytest.param(4, [1], [2], id="four ranks, which do not divide the six packs"),
    ],
)
def test_every_split_of_a_step_gives_the_same_gradient(
    workload: dict[str, Any],
    oracle_gradient: torch.Tensor,
    trajectory: list[list[float]],
    tmp_path: Path,
    world_size: int,
    packs_per_micro_batch: list[int],
    num_micro_batches: list[int],
) -> None:
    settings = {**workload, "packs_per_micro_batch": packs_per_micro_batch, "folder": str(tmp_path)}
    results = run_ranks(world_size, "gradients", settings)
    assert [r["num_micro_batches"] for r in results] == num_micro_batches
    for result in results:
        gradient = torch.load(result["path"], weights_only=True)
        assert float((gradient - oracle_gradient).norm() / oracle_gradient.norm()) < TOLERANCE
        assert [result["loss"], result["grad_norm"]] == pytest.approx(trajectory[0], rel=TOLERANCE)
