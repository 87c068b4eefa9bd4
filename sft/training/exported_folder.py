"""Which model of which run an exported folder holds: its manifest says it, or the place where it lies."""

import re
from pathlib import Path
from typing import NamedTuple

from sft.atomic_files import is_published, read_manifest
from sft.errors import UserError
from sft.run_claim import is_claimed
from sft.run_folder import RunFolder, StageFolder
from sft.stage_end import read_stage_end
from sft.training.checkpoint_export import RunModel, read_run

_KEPT = re.compile(r"model-step-(\d{8,})")
"""The model at the end of a stage that was extended since."""


class ExportedFolder(NamedTuple):
    """A folder, and what it holds."""

    path: Path
    model: RunModel
    dtype: str


def read_exported(path: Path) -> ExportedFolder:
    """What an exported folder holds.

    Raises:
        UserError: it is not one of a run, or its run is gone.
    """
    folder = path.resolve()
    manifest = read_manifest(folder) if is_published(folder) else {}
    lies_in = folder.parent.parent
    stages = lies_in.name == "stages" and folder.name.startswith("model")
    run = next(
        (RunFolder(found) for found in _runs_of(folder, manifest.get("run")) if is_claimed(RunFolder(found))), None
    )
    if run is None or not (stages or "stage" in manifest):
        gone = f" It names the run {manifest['run']}, which is not there." if "run" in manifest else ""
        raise UserError(
            f"{path} is neither the folder of a run nor a model that a run has exported.{gone} Give RUN_DIR, or a "
            "folder such as RUN_DIR/stages/0-NAME/model."
        )
    config = read_run(run)
    names = [stage.name for stage in config.stages]
    stage = StageFolder(folder.parent) if stages else run.stage(names.index(manifest["stage"]), manifest["stage"])
    step = manifest.get("step") or _step_of(folder, stage)
    if step is None:
        raise UserError(f"{path}: its stage {stage.name} has not ended, so it is not known of which step it is.")
    dtype = str(manifest.get("dtype", config.model.dtype))
    return ExportedFolder(folder, RunModel(run, config, stage, int(step)), dtype)


def _runs_of(folder: Path, named: str | None) -> list[Path]:
    """Where the run may be: a run that was moved has its exports with it."""
    return [*folder.parents[1:3], *([Path(named)] if named else [])]


def _step_of(folder: Path, stage: StageFolder) -> int | None:
    if kept := _KEPT.fullmatch(folder.name):
        return int(kept[1])
    end = read_stage_end(stage)
    return None if end is None else end.num_steps
