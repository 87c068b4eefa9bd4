"""A run of two real ranks under ZeRO-3 with an exported model, and the plain program in this process."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sft.config import SftConfig
from sft.parity import cases, plain_process, plain_transformers
from sft.parity.parity_result import ParityResult
from sft.ranks.ranks import OneRank
from sft.run_folder import RunFolder
from sft.training.attempt import begin_attempt
from sft.training.checkpoint_export import find_model
from sft.training.control_signals import ControlSignals
from sft.training.curriculum import run_curriculum
from sft.training.export_check import check_export
from sft.training.exported_folder import ExportedFolder
from sft.training.run_context import RunContext
from sft.training.workload import prepare_workload
from sft.world import World
from tests.conftest import SmallRecords
from tests.distributed.launch import run_ranks
from tests.jobs import PARTITION_ALL, two_stage_job


def train_run(folder: Path, base: Path, records: SmallRecords, num_ranks: int, **changes: Any) -> RunFolder:
    """A finished run of one stage of four steps, with checkpoints after two and four.

    Args:
        folder: where it lies.
        base: the model that it begins with.
        records: its data.
        num_ranks: two train under ZeRO-3 in processes of their own, one in this process without.
        changes: fields of its sections.
    """
    content = two_stage_job("run", folder, base, records, {"broad": 4, "words": 1})
    job: dict[str, Any] = {**content, "stages": content["stages"][:1], "deepspeed": {"extra": PARTITION_ALL}}
    job["checkpoint"] = {"every_steps": 2, "check_export": True}
    job["data"] = {**content["data"], "max_len_tokens": 512, "task_tag": {"text": "Task: {task}"}}
    job["train"] = {**content["train"], "pack_len_tokens": 512, "packs_per_step": 2}
    for section, fields in changes.items():
        job[section] = {**job.get(section, {}), **fields}
    config = SftConfig.model_validate(job)
    workload, run = prepare_workload(config)[0], RunFolder(config.run.dir)
    if num_ranks > 1:
        assert run_ranks(num_ranks, "run_jobs", {"jobs": [(job, workload.as_json())]}) == [True]
    else:
        attempt = begin_attempt(run, OneRank())
        assert run_curriculum(RunContext(config, workload, attempt, ControlSignals(run.stop_file)))
    return run


def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """The plain program runs here, where everything is imported, and answers are short: each check takes less time."""

    def run(command: list[str], folder: str, errors: Any, tell: Callable[[], None]) -> None:
        task, result = command[-2:]
        try:
            plain_transformers.main(task, result)
        except Exception as error:
            errors.write(f"{type(error).__name__}: {error}\n".encode())
            return
        found = json.loads(Path(result).read_text())
        assert found.pop("foreign"), "this process has imported us"
        Path(result).write_text(json.dumps({**found, "foreign": []}))

    monkeypatch.setattr(plain_process, "_run", run)
    monkeypatch.setattr(cases, "_NEW_TOKENS", 4)  # answers of random weights have no end


def copy_of(run: RunFolder, folder: Path) -> Path:
    """The model at the end of the run's stage, to be spoiled; it still says of which run it is."""
    model = folder / "exports" / "copy"
    shutil.copytree(run.stage(0, "broad").model, model)
    return model


def checked(run: RunFolder, folder: Path, **options: Any) -> ParityResult:
    """What the check says of a folder that holds the model after the run's last step."""
    model = find_model(run, None, "last")
    with model.opened() as reader:
        exported = ExportedFolder(folder, model, model.config.model.dtype)
        return check_export(exported, reader, World(), **options)
