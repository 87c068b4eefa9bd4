"""The config of a small job in two stages, as several kinds of tests run it."""

from pathlib import Path
from typing import Any

from tests.conftest import SmallRecords

PARTITION_ALL = {"zero_optimization": {"stage3_param_persistence_threshold": 0}}
"""For `deepspeed.extra`: else parameters as small as ours stay whole on every rank."""


def two_stage_job(name: str, folder: Path, model: Path, records: SmallRecords, steps: dict[str, int]) -> dict[str, Any]:
    """The content of its file; the run folder is `folder / name`, `steps` are those of the stages broad and words."""
    return {
        "run": {"name": name, "dir": str(folder / name)},
        "model": {"path": str(model), "dtype": "float32"},
        "data": {
            "cache_dir": str(folder / "cache"),
            "max_len_tokens": 256,
            "sources": [
                {
                    "name": "words",
                    "path": str(records.instructions),
                    "format": "instruction",
                    "task": {"column": "task"},
                },
                {"name": "next", "path": str(records.prompts), "format": "prompt_completion"},
            ],
            "holdout": {"share": 0.05, "tasks": ["sort"]},
        },
        "stages": [
            {"name": "broad", "budget": {"steps": steps["broad"]}, "optimizer": {"lr": 1e-3}},
            {
                "name": "words",
                "mixture": {"rates": "weights", "weights": {"copy": 2, "reverse": 1}, "replay": {"broad": 0.1}},
                "budget": {"steps": steps["words"]},
                "optimizer": {"lr": 1e-3},
            },
        ],
        "train": {"pack_len_tokens": 256, "packs_per_step": 12, "activation_checkpointing": False},
        "checkpoint": {"every_steps": 4},
        "logging": {"tensorboard": False},
    }
