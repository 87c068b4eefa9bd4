"""Run folders as the ranks write them, without training."""

import json
import os
from pathlib import Path
from typing import Any

from sft.atomic_files import write_json
from sft.attempt_record import End, Why, write_end
from sft.config import SftConfig
from sft.config_file import build_config
from sft.metrics import StepMetrics, append_metrics
from sft.run_folder import RunFolder
from sft.training.run_record import write_run_record

NUM_STEPS = {"broad": 6, "words": 4}
STAGES = list(NUM_STEPS)


def planned_run(folder: Path, **sections: Any) -> tuple[SftConfig, RunFolder]:
    """A run of two stages that is planned and has not trained; `sections` are more of its config."""
    stages = [{"name": name, "budget": {"steps": n}, "optimizer": {"lr": 1e-3}} for name, n in NUM_STEPS.items()]
    content = {
        "run": {"name": "tuned", "dir": str(folder)},
        "model": {"path": "owner/model"},
        "data": {"sources": [{"name": "only", "path": "https://user:hunter22@example.org/a.jsonl"}]},
        "stages": stages,
        **sections,
    }
    config, run = build_config(content), RunFolder(folder)
    run.evaluations.mkdir(parents=True)
    for index, (name, num_steps) in enumerate(NUM_STEPS.items()):
        packs = run.stage(index, name).packs
        packs.mkdir(parents=True)
        (packs / "manifest.json").write_text(json.dumps({"num_steps": num_steps}))
    write_run_record(config)
    return config, run


def train(run: RunFolder, stage: str, steps: range, attempt: int = 1, loss: float = 2.0) -> None:
    """Write the metrics of steps of which each has a loss of its own: `loss`, a tenth less for each step."""
    for step in steps:
        metrics = StepMetrics(
            stage=stage,
            step=step,
            num_steps=NUM_STEPS[stage],
            loss=loss - 0.1 * step,
            grad_norm=1.5,
            lr=1e-3,
            num_supervised_tokens=500,
            num_tokens=1000,
            seconds=0.5,
            checkpoint_stall_seconds=0.0,
            peak_memory_gib=1.25,
            input_wait_seconds=0.25,
            attempt=attempt,
            time=1.7e9 + 100 * attempt + step,
        )
        append_metrics(run.stage(STAGES.index(stage), stage).metrics, metrics)


def evaluate(run: RunFolder, file_name: str, loss: float, at: float = 1.7e9) -> None:
    """Write an evaluation with one task of the loss, and one with an awkward name, as if it had been made then."""
    tasks = {"qa": {"loss": loss}, "../maths & code": {"loss": loss + 1}}
    write_json(run.evaluations / f"{file_name}.json", {"name": "x", "step": None, "loss": loss + 0.5, "tasks": tasks})
    os.utime(run.evaluations / f"{file_name}.json", (at, at))


def begin_attempt(run: RunFolder, number: int) -> None:
    run.attempt(number).path.mkdir(parents=True)


def end_attempt(run: RunFolder, number: int, why: Why) -> None:
    write_end(run.attempt(number), End(why))
