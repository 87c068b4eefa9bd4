"""A prepared workload of the tiny model, shared by all distributed tests."""

import json
from pathlib import Path
from typing import Any

import pytest

from sft.config import SftConfig
from sft.engine.single_process import SingleProcessEngine
from sft.run_folder import RunFolder
from sft.training.workload import prepare_workload
from sft.world import World
from tests.conftest import SmallRecords
from tests.distributed.scenarios import build_loader, take_steps

TRAJECTORY = Path(__file__).parents[1] / "equivalence" / "trajectory.json"
PACKS_PER_STEP = 6


@pytest.fixture(scope="session")
def workload(
    tiny_model_dir: Path, small_records: SmallRecords, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """The settings that every scenario takes: config, store and plan, with six packs a step."""
    folder = tmp_path_factory.mktemp("distributed")
    source = {
        "name": "words",
        "path": str(small_records.instructions),
        "format": "instruction",
        "task": {"column": "task"},
    }
    content = {
        "run": {"name": "distributed", "dir": str(folder / "run")},
        "model": {"path": str(tiny_model_dir), "dtype": "float32"},
        "data": {"sources": [source], "cache_dir": str(folder / "cache"), "max_len_tokens": 256},
        "stages": [
            {
                "name": "only",
                "budget": {"steps": 6},
                # The norm is far below 100, so the gradient that is compared is not clipped.
                "optimizer": {"lr": 1e-2, "max_grad_norm": 100.0, "weight_decay": 0.1, "warmup_ratio": 0.3},
            }
        ],
        "train": {
            "pack_len_tokens": 256,
            "packs_per_step": PACKS_PER_STEP,
            "activation_checkpointing": False,
            "logits_chunk_tokens": 64,
        },
    }
    config = SftConfig.model_validate(content)
    prepared, _store, _plans = prepare_workload(config)
    return {
        "config": content,
        "store": str(prepared.store),
        "plan": str(RunFolder(config.run.dir).stage(0, "only").packs),
        "packs_per_step": PACKS_PER_STEP,
    }


@pytest.fixture(scope="session")
def trajectory(workload: dict[str, Any], request: pytest.FixtureRequest) -> list[list[float]]:
    """The pinned (loss, grad_norm) of every step; `--pin` writes what the plain engine gives now."""
    if request.config.getoption("--pin"):
        config = SftConfig.model_validate(workload["config"])
        engine = SingleProcessEngine(config, config.stages[0].optimizer, config.model.path)
        steps = take_steps(engine, config, build_loader(workload, World()), 0, 6)
        TRAJECTORY.write_text(json.dumps(steps, indent=1) + "\n")
    pinned: list[list[float]] = json.loads(TRAJECTORY.read_text())
    return pinned
