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

from sft.absolute_paths import local_path
from sft.atomic_files import MANIFEST, is_published, read_json, read_manifest
from sft.checkpoint.open_storage import stage_location, stage_storage
from sft.config import CheckpointConfig, ModelConfig, SftConfig
from sft.config_names import with_current_names
from sft.config_section import Section
from sft.errors import UserError
from sft.run_claim import is_claimed
from sft.run_folder import RunFolder, StageFolder


def with_start(content: Mapping[str, Any]) -> dict[str, Any]:
    """The content of a config, with its section `from` filled in; without such a section, unchanged.

    Raises:
        UserError: there is no such run or stage, or it has no such model.
    """
    given = content.get("from")
    if not isinstance(given, Mapping) or not all(isinstance(given.get(key), str) for key in ("run", "stage")):
        return dict(content)  # its problems are reported when all fields are checked
    run = RunFolder(local_path(given["run"]))
    if not is_claimed(run) or not run.config.is_file():
        raise UserError(f"from.run: {run.path} is not the folder of a run. Name one that `sft train` wrote.")
    try:
        return _filled(content, given, run)
    except UserError:  # which is a ValueError, too
        raise
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError) as error:
        raise UserError(f"from.run: {run.path} cannot be read: {type(error).__name__}: {error}") from error


def _filled(content: Mapping[str, Any], given: Mapping[str, Any], run: RunFolder) -> dict[str, Any]:
    other, _ = with_current_names(yaml.safe_load(run.config.read_text(encoding="utf-8")), SftConfig)
    names = [stage["name"] for stage in other["stages"]]
    if given["stage"] not in names:
        raise UserError(f"from.stage: {run.path} has no stage {given['stage']!r}. It has: {', '.join(names)}.")
    index = names.index(given["stage"])
    earlier = other.get("from") or {}
    mixtures = {**earlier.get("mixtures", {})}
    for i, stage in enumerate(other["stages"][: index + 1]):
        mixtures[stage["name"]] = _with_tasks(stage["mixture"], run.stage(i, stage["name"]))
    found = {"run": str(run.path), **_find(run, other, index, given.get("step")), "mixtures": mixtures}
    own = content.get("model")
    # A path that is given here is compared with the one that was found (see `sft.config_rules`).
    model = {**_known(other["model"], ModelConfig), "path": found["model"], **(own if isinstance(own, Mapping) else {})}
    return {**content, "model": model, "from": {**given, **found}}


def _with_tasks(mixture: Mapping[str, Any], stage: StageFolder) -> dict[str, Any]:
    """The mixture with its tasks by name: unnamed tasks mean all tasks of the other run's data, not of this run's."""
    if mixture["tasks"] is not None or mixture["rates"] == "weights" or not is_published(stage.packs):
        return {**mixture}
    return {**mixture, "tasks": sorted(row["task"] for row in read_manifest(stage.packs)["mixture"])}


def _find(run: RunFolder, other: Mapping[str, Any], index: int, given: Any) -> dict[str, Any]:
    """The fields `step`, `model`, `checkpoints` and `manifest_sha256` of the config's section."""
    stage = run.stage(index, other["stages"][index]["name"])
    ended = int(read_json(stage.complete)["num_steps"]) if stage.complete.is_file() else None
    models = {int(path.name.rpartition("-")[2]): path for path in stage.earlier_models()}
    models |= {} if ended is None else {ended: stage.model}
    step = ended if given is None else given
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
        what = f"has no model and no checkpoint after {step} steps" if step is not None else "is not finished"
        there = ", ".join(map(str, sorted({*models, *saved})))
        way_out = f"Give from.step one of: {there}." if there else "It has no checkpoint yet, either."
        raise UserError(f"from: stage {other['stages'][index]['name']} of {run.path} {what}. {way_out}")
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
