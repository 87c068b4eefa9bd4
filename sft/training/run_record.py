"""What a run folder says of its run: the resolved config and the versions. A resumed run must be the same run.

What may change between two starts of a run is how it is run (machines, checkpoints, logging) and what comes behind that
which has trained, not what was computed.
"""

import platform
import re
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from typing import Any

import yaml
from pydantic import BaseModel

from sft.atomic_files import write_json, write_text
from sft.config import SftConfig
from sft.config_effects import affects, completed
from sft.data.planning.extension import SCHEDULE_FIELDS
from sft.data.planning.plan_inputs import shown_value
from sft.errors import UserError
from sft.run_claim import check_run_folder
from sft.run_folder import RunFolder
from sft.url_secrets import hide_secrets

_FOUND_IN_SOURCES = {"path", "split", "subset", "revision", "format", "columns"}
"""What these lead to is in the fingerprint of the data, to which a stage's plan is held."""

PACKAGES = ("torch", "deepspeed", "transformers", "datasets", "ray", "numpy")
"""What computes beside this program."""


def check_run(config: SftConfig) -> Mapping[str, Any] | None:
    """Refuse a run folder in which another run has trained; what has not trained may be planned anew.

    May be another: what changes nothing (see `sft.config_effects`), the stages that have not begun, and of the last one
    that has, its budget, with the learning rate of what is added (see `sft.data.planning.extension`).

    Returns:
        What the folder's record says of the run, with the fields that an earlier version did not have; None if it
        never trained.

    Raises:
        UserError: data, model, seed, or a stage that has trained differ; the message shows how.
    """
    run = RunFolder(config.run.dir)
    if not run.config.is_file() or not run.has_trained():
        return None
    recorded = completed(config, hide_secrets(yaml.safe_load(run.config.read_text(encoding="utf-8"))))
    changed = [*_differences(config, recorded), *_stage_differences(run, config, recorded["stages"])]
    if config.from_ and recorded["from"] and config.from_.manifest_sha256 == recorded["from"].get("manifest_sha256"):
        # The same model, which lies elsewhere: its stage was extended since, or its run has moved.
        changed = [difference for difference in changed if difference[0] != "model.path"]
    if changed:
        lines = [f"  {where}: was {shown_value(before)}, now {shown_value(now)}\n" for where, before, now in changed]
        raise UserError(
            f"{run.path} holds a run with another config:\n{''.join(lines)}"
            "Set these back to resume it, or give run.dir a new folder to start another. A run may be extended: by "
            "stages behind those that have trained, and by a larger budget of the last of these, with a learning rate "
            "for what is added."
        )
    return recorded


def claim_run_folder(run: RunFolder) -> None:
    """Make the folder a run's: write down the versions of what computes, before anything else is written.

    Raises:
        UserError: it holds files that are not a run's, or cannot be written.
    """
    check_run_folder(run)
    versions = {name: version(name) for name in PACKAGES}
    try:
        write_json(run.manifest, {"versions": {"python": platform.python_version(), **versions}})
    except OSError as error:
        raise UserError(f"run.dir: {run.path} cannot be written: {error.strerror}. Give a folder that can.") from error


def is_extended(config: SftConfig) -> bool:
    """Whether a stage that has trained has another budget now.

    Raises:
        UserError: see `check_run`.
    """
    recorded = check_run(config)
    if recorded is None:
        return False
    pairs = zip(recorded["stages"], config.stages, strict=False)
    return any(stage["budget"] != now.budget.model_dump(mode="json") for stage, now in pairs)


def write_run_record(config: SftConfig) -> None:
    """Write the resolved config."""
    run = RunFolder(config.run.dir)
    shown = hide_secrets(config.model_dump(mode="json", by_alias=True))  # others read the run folder
    write_text(run.config, yaml.safe_dump(shown, sort_keys=False, allow_unicode=True))


Difference = tuple[str, Any, Any]
"""(path of a field, its value in the record, its value now)"""


def _stage_differences(run: RunFolder, config: SftConfig, recorded: Sequence[Any]) -> Iterator[Difference]:
    """What differs of the stages that have trained."""
    trained = [i for i, stage in enumerate(recorded) if run.stage(i, stage["name"]).has_trained()]
    for i in trained:
        name = recorded[i]["name"]
        now = config.stages[i] if i < len(config.stages) else None
        if now is None or now.name != name:
            yield f"stages.{i}", f"{name}, which has trained", None if now is None else now.name
            continue
        found = list(_differences(now, recorded[i], f"stages.{name}"))
        if i == trained[-1] and any(where.startswith(f"stages.{name}.budget.") for where, _, _ in found):
            # More is added; whether it is more is seen when it is planned.
            may = (f"stages.{name}.budget.", *(f"stages.{name}.optimizer.{field}" for field in SCHEDULE_FIELDS))
            found = [difference for difference in found if not difference[0].startswith(may)]
        yield from found


def _differences(section: BaseModel, recorded: Mapping[str, Any], path: str = "") -> Iterator[Difference]:
    """What differs of a section but its stages, field by field, of what changes anything."""
    now = hide_secrets(section.model_dump(mode="json", by_alias=True))
    for name, field in type(section).model_fields.items():
        key = field.alias or name
        where = f"{path}.{key}".lstrip(".")
        if where != "stages" and affects(field).first != "nothing" and not _is_found_in_source(where):
            yield from _compare(getattr(section, name), recorded.get(key), now[key], where)
    # Of another version, which may have done something by it.
    yield from ((f"{path}.{key}".lstrip("."), value, None) for key, value in recorded.items() if key not in now)


def _compare(value: Any, before: Any, now: Any, where: str) -> Iterator[Difference]:
    if isinstance(value, BaseModel) and isinstance(before, Mapping):
        yield from _differences(value, before, where)
    elif isinstance(value, tuple) and isinstance(before, list) and len(value) == len(before):
        for i, parts in enumerate(zip(value, before, now, strict=True)):
            yield from _compare(*parts, f"{where}.{i}")
    elif before != now:
        yield where, before, now


def _is_found_in_source(where: str) -> bool:
    found = re.fullmatch(r"data\.sources\.\d+\.(\w+)", where)
    return found is not None and found[1] in _FOUND_IN_SOURCES
