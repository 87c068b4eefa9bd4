"""A run that begins with a model of another run: which model that is, and what may be replayed.

    from: {run: runs/old, stage: words}              the model at the end of the stage
    from: {run: runs/old, stage: words, step: 200}   after that many steps: the model then, or a checkpoint

The findings are filled into the config. So the run is self-contained: its record says what it began with, and it can
replay the other run's stages when that run is gone.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter

from sft.absolute_paths import local_path
from sft.atomic_files import MANIFEST, is_published, read_json, read_manifest
from sft.checkpoint.open_storage import stage_location, stage_storage
from sft.config import CheckpointConfig, FromConfig, ModelConfig, SftConfig
from sft.config_file import check_section
from sft.config_names import with_current_names
from sft.config_rules import Problem
from sft.config_section import Section
from sft.errors import UserError
from sft.run_claim import is_claimed
from sft.run_folder import RunFolder, StageFolder
from sft.stage_end import read_stage_end


class _MisledError(Exception):
    """The section does not lead to a model."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.rule)
        self.problem = problem


def with_start(content: Mapping[str, Any]) -> tuple[dict[str, Any], list[Problem]]:
    """The content of a config, with its section `from` filled in; without such a section, unchanged.

    Returns:
        The content, and what is wrong where there is no such run or stage, or it has no such model.
    """
    given = content.get("from")
    if given is None or check_section(TypeAdapter(FromConfig), given, "from")[0]:
        return dict(content), []  # its problems are reported when all fields are checked
    try:
        return _filled(content, given, _open(given["run"])), []
    except _MisledError as error:
        return dict(content), [error.problem]


def _open(path: str) -> RunFolder:
    try:
        run = RunFolder(local_path(path))
    except UserError:
        rule = "holds a variable, or begins with a home folder, that is not known here"
        raise _misled("run", path, rule, "set it, or write the path out") from None
    if not is_claimed(run) or not run.config.is_file():
        rule = f"{run.path} is not the folder of a run"
        raise _misled("run", path, rule, "name one that `sft train` wrote")
    return run


def _misled(field: str, value: Any, rule: str, way_out: str) -> _MisledError:
    return _MisledError(Problem(f"from.{field}", value, rule, way_out))


def _filled(content: Mapping[str, Any], given: Mapping[str, Any], run: RunFolder) -> dict[str, Any]:
    try:
        return _with_found(content, given, run)
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError) as error:
        why = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        rule = f"{run.path} cannot be read: {' '.join(why.split())}"
        raise _misled("run", given["run"], rule, "put that right, or name another run") from error


def _with_found(content: Mapping[str, Any], given: Mapping[str, Any], run: RunFolder) -> dict[str, Any]:
    other, _ = with_current_names(yaml.safe_load(run.config.read_text(encoding="utf-8")), SftConfig)
    names = [stage["name"] for stage in other["stages"]]
    if given["stage"] not in names:
        rule = f"{run.path} has no stage of this name"
        raise _misled("stage", given["stage"], rule, f"name one of: {', '.join(names)}")
    index = names.index(given["stage"])
    earlier = other.get("from") or {}
    mixtures = {**earlier.get("mixtures", {})}
    for i, stage in enumerate(other["stages"][: index + 1]):
        mixtures[stage["name"]] = _with_tasks(stage["mixture"], run.stage(i, stage["name"]))
    found = {"run": str(run.path), **_find(run, other, index, given), "mixtures": mixtures}
    own = content.get("model")
    # A path that is given here is compared with the one that was found (see `sft.config_rules`).
    model = {**_known(other["model"], ModelConfig), "path": found["model"], **(own if isinstance(own, Mapping) else {})}
    return {**content, "model": model, "from": {**given, **found}}


def _with_tasks(mixture: Mapping[str, Any], stage: StageFolder) -> dict[str, Any]:
    """The mixture with its tasks by name: unnamed tasks mean all tasks of the other run's data, not of this run's."""
    if mixture["tasks"] is not None or mixture["rates"] == "weights" or not is_published(stage.packs):
        return {**mixture}
    return {**mixture, "tasks": sorted(row["task"] for row in read_manifest(stage.packs)["mixture"])}


def _find(run: RunFolder, other: Mapping[str, Any], index: int, given: Mapping[str, Any]) -> dict[str, Any]:
    """The fields `step`, `model`, `checkpoints` and `manifest_sha256` of the config's section."""
    stage = run.stage(index, other["stages"][index]["name"])
    end = read_stage_end(stage)
    ended = None if end is None else end.num_steps
    models = {int(path.name.rpartition("-")[2]): path for path in stage.earlier_models()}
    models |= {} if end is None else {end.num_steps: stage.model}
    models |= {end.best.step: stage.best_model} if end is not None and end.best and end.has_best_model else {}
    step = ended if given.get("step") is None else given["step"]
    if step in models and is_published(models[step]):
        return {
            "step": step,
            "model": str(models[step]),
            "manifest_sha256": _hash_of(models[step]),
            "checkpoints": None,
        }
    checkpoint = CheckpointConfig(**_known(other["checkpoint"], CheckpointConfig))
    storage = stage_storage(checkpoint, stage)
    saved = [at for at in storage.steps() if storage.is_published(at)]
    if step not in saved:
        there = ", ".join(map(str, sorted({*models, *saved})))
        way_out = f"give from.step one of: {there}" if there else "train it first: it has no checkpoint yet"
        if step is None:
            raise _misled("stage", given["stage"], f"{run.path} has not finished this stage", way_out)
        rule = f"stage {given['stage']} of {run.path} has no model and no checkpoint after so many steps"
        raise _misled("step", step, rule, way_out)
    # A model of the same class, whose parameters are replaced; untrained parameters are the same in both.
    before = run.stage(index - 1, other["stages"][index - 1]["name"]).model if index else other["model"]["path"]
    with storage.opened(step) as folder:
        manifest = _hash_of(folder)
    where = stage_location(checkpoint, stage)
    return {"step": step, "model": str(before), "manifest_sha256": manifest, "checkpoints": where}


def _hash_of(folder: Path) -> str:
    return str(read_json(folder / MANIFEST)["manifest_sha256"])


def _known(recorded: Mapping[str, Any], section: type[Section]) -> dict[str, Any]:
    """The fields of a recorded section that this version knows."""
    keys = {field.alias or name for name, field in section.model_fields.items()}
    return {key: value for key, value in recorded.items() if key in keys}
