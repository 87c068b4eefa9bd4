"""A small job in two stages, to be started as users start theirs."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.cluster_utils import Cluster

from tests.conftest import SmallRecords

NUM_STEPS = {"broad": 4, "words": 50}

WriteConfig = Callable[[str], Path]


@pytest.fixture(scope="session")
def write_config(
    tiny_model_dir: Path, small_records: SmallRecords, tmp_path_factory: pytest.TempPathFactory
) -> WriteConfig:
    """A function that writes the config of a run in two stages, with a run folder of the given name."""
    folder = tmp_path_factory.mktemp("cluster")
    records, prompts = map(str, small_records)
    content: dict[str, Any] = {
        "model": {"path": str(tiny_model_dir), "dtype": "float32"},
        "data": {
            "cache_dir": str(folder / "cache"),
            "max_len_tokens": 256,
            "sources": [
                {"name": "words", "path": records, "format": "instruction", "task": {"column": "task"}},
                {"name": "next", "path": prompts, "format": "prompt_completion"},
            ],
            "holdout": {"share": 0.05, "tasks": ["sort"]},
        },
        "stages": [
            {"name": "broad", "budget": {"steps": NUM_STEPS["broad"]}, "optimizer": {"lr": 1e-3}},
            {
                "name": "words",
                "mixture": {"rates": "weights", "weights": {"copy": 2, "reverse": 1}, "replay": {"broad": 0.1}},
                "budget": {"steps": NUM_STEPS["words"]},
                "optimizer": {"lr": 1e-3},
            },
        ],
        "train": {"pack_len_tokens": 256, "packs_per_step": 12, "activation_checkpointing": False},
        "checkpoint": {"every_steps": 4},
        "logging": {"tensorboard": False},
        "cluster": {"workers": 2},
    }

    def write(name: str) -> Path:
        path = folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump({"run": {"name": name, "dir": str(folder / name)}, **content}))
        return path

    return write


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """A head for the controller, and two nodes that have room for one worker each."""
    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "resources": {"head": 1}})
    for _ in range(2):
        nodes.add_node(num_cpus=2)
    yield nodes
    nodes.shutdown()
