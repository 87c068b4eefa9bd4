"""The record of a run in its folder: the resolved config and the versions. A resumed run must be the same run.

Between two starts of a run, only this may change: how it is run (machines, checkpoints, logging), and what comes after
the steps that were trained. What was computed may not.
"""

import platform
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel

from sft.atomic_files import MANIFEST, DamagedError, read_json, write_json, write_text
from sft.config import SftConfig
from sft.config_effects import Affects, Effect, affects, completed
from sft.config_file import read_yaml
from sft.config_yaml import write_yaml
from sft.data.planning.plan_inputs import shown_value
from sft.errors import UserError
from sft.run_claim import check_run_folder, is_claimed
from sft.run_folder import RunFolder
from sft.url_secrets import hide_secrets

PACKAGES = ("torch", "deepspeed", "transformers", "datasets", "ray", "numpy")
"""The packages that compute, besides this program."""


def check_run(config: SftConfig) -> Mapping[str, Any] | None:
    """Refuse a run folder in which another run has trained; stages that have not trained may be planned anew.

    What a field affects (see `sft.config_effects`) says whether it may change. Stages that have not begun may change
    completely. The last stage that has begun may get another budget, with another learning rate for what is added (see
    `sft.data.planning.extension`).

    Returns:
        The folder's record of the run, completed with fields that an earlier version did not have; None if it never
        trained.

    Raises:
        UserError: data, model, seed, or a stage that has trained differ; the message shows how.
    """
    run = RunFolder(config.run.dir)
    if not run.has_trained():
        return None
    if not run.config.is_file():
        raise DamagedError(run.config, "it is gone, but it holds the config that the run has trained with")
    try:
        recorded = completed(config, hide_secrets(read_yaml(run.config).content))
        changed = [*_differences(config, recorded), *_stage_differences(run, config, recorded["stages"])]
    except UserError:  # which is a ValueError, too
        raise
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise DamagedError(run.config, f"it is not the config of a run ({type(error).__name__}: {error})") from error
    if config.from_ and recorded["from"] and config.from_.manifest_sha256 == recorded["from"].get("manifest_sha256"):
        # The same model at another place: its stage was extended since, or its run has moved.
        changed = [difference for difference in changed if difference.path != "model.path"]
    if changed:
        lines = [f"  {d.path}: was {shown_value(d.before)}, now {shown_value(d.now)}\n" for d in changed]
        raise UserError(
            f"{run.path} holds a run with another config:\n{''.join(lines)}"
            "Set these back to resume it, or give run.dir a new folder to start another. A run may be extended by "
            "stages after those that have trained, and by a larger budget of the last of these, with a learning rate "
            "for what is added."
        )
    return recorded


def claim_run_folder(run: RunFolder) -> None:
    """Make the folder a run's: record the versions of the packages that compute, before anything else is written.

    Raises:
        UserError: it holds files that are not a run's, or cannot be written.
    """
    check_run_folder(run)
    versions = {name: version(name) for name in PACKAGES}
    _record(run, {"versions": {"python": platform.python_version(), **versions}})


def record_made_data(config: SftConfig, made: Mapping[str, Any]) -> None:
    """Record what the run trains on that was made, and what the model that it begins with was trained on.

    Args:
        config: of the run, whose folder is claimed.
        made: source → what is known of its made records (see `sft.data.made_records`).

    Raises:
        UserError: it cannot be written.
    """
    run = RunFolder(config.run.dir)
    _record(run, {"made": made, "made_before": _made_before(run, config)})


def made_until(run: RunFolder) -> dict[str, Any]:
    """What the models of a run were trained on that was made, by it and before it: name of run and source → see `made`.

    Two runs may have the same name: then the later one has a number.
    """
    content = _manifest(run)
    found = dict(content.get("made_before", {}))
    for source, about in content.get("made", {}).items():
        label, number = f"{run.path.name}: {source}", 1
        while label in found:
            number += 1
            label = f"{run.path.name} ({number}): {source}"
        found[label] = about
    return found


def about_model(run: RunFolder) -> dict[str, Any]:
    """What the manifest of each model of a run says of made data: nothing where there is none."""
    made = made_until(run)
    return {"made": made} if made else {}


def _record(run: RunFolder, content: Mapping[str, Any]) -> None:
    """Put these parts into the manifest, but for empty ones; the others stay."""
    recorded = {**_manifest(run), **content}
    try:
        write_json(run.manifest, {name: value for name, value in recorded.items() if value})
    except OSError as error:
        raise UserError(f"run.dir: {run.path} cannot be written: {error.strerror}. Give a writable folder.") from error


def _made_before(run: RunFolder, config: SftConfig) -> Mapping[str, Any]:
    """What the model that a run begins with was trained on that was made.

    Its run knows more than its folder: what was recorded since. If both are gone, what this run has recorded counts.
    """
    start = config.from_
    if start is None:
        return _made_of_model(config.model.path) or {}
    if is_claimed(other := RunFolder(start.run)):
        return made_until(other)
    made = _made_of_model(start.model or config.model.path)
    return _manifest(run).get("made_before", {}) if made is None else made


def _made_of_model(path: str) -> Mapping[str, Any] | None:
    """What the folder of a model says of it; None where no run has made it, or it is not here."""
    try:
        content = read_json(Path(path).expanduser() / MANIFEST)
    except (OSError, RuntimeError, DamagedError):
        return None
    if not isinstance(content, Mapping) or content.get("kind") != "model":
        return None
    made = content.get("made", {})
    return made if isinstance(made, Mapping) else None


def _manifest(run: RunFolder) -> dict[str, Any]:
    return dict(read_json(run.manifest)) if is_claimed(run) else {}


def is_extended(config: SftConfig) -> bool:
    """Whether the budget of a stage that has trained has changed.

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
    write_text(run.config, write_yaml(shown))


class Difference(NamedTuple):
    """A field, its value in the record and its value now."""

    path: str
    before: Any
    now: Any
    effect: Effect = "store"


def _stage_differences(run: RunFolder, config: SftConfig, recorded: Sequence[Any]) -> Iterator[Difference]:
    """The differences in stages that have trained."""
    trained = [i for i, stage in enumerate(recorded) if run.stage(i, stage["name"]).has_trained()]
    for i in trained:
        name = recorded[i]["name"]
        now = config.stages[i] if i < len(config.stages) else None
        if now is None or now.name != name:
            yield Difference(f"stages.{i}", f"{name}, which has trained", None if now is None else now.name)
            continue
        found = list(_differences(now, recorded[i], f"stages.{name}"))
        if i == trained[-1] and any(difference.effect == "budget" for difference in found):
            # The stage gets more; the planning checks that it is more.
            found = [difference for difference in found if difference.effect not in ("budget", "rate")]
        yield from found


def _differences(section: BaseModel, recorded: Mapping[str, Any], path: str = "") -> Iterator[Difference]:
    """The differences of a section, field by field, without stages and without fields that may change."""
    now = hide_secrets(section.model_dump(mode="json", by_alias=True))
    for name, field in type(section).model_fields.items():
        key, mark = field.alias or name, affects(field)
        where = f"{path}.{key}".lstrip(".")
        if where != "stages" and not (mark and mark.may_change):
            yield from _compare(getattr(section, name), recorded.get(key), now[key], where, mark)
    # Fields of another version, which may have had an effect.
    others = [key for key in recorded if key not in now]
    yield from (Difference(f"{path}.{key}".lstrip("."), recorded[key], None) for key in others)


def _compare(value: Any, before: Any, now: Any, where: str, mark: Affects | None) -> Iterator[Difference]:
    if isinstance(value, BaseModel) and isinstance(before, Mapping):
        yield from _differences(value, before, where)
    elif isinstance(value, tuple) and isinstance(before, list) and len(value) == len(before):
        for i, parts in enumerate(zip(value, before, now, strict=True)):
            yield from _compare(*parts, f"{where}.{i}", mark)
    elif before != now:
        yield Difference(where, _names(before), _names(now), mark.first if mark else "store")


def _names(value: Any) -> Any:
    """The names in a list of named sections: whole sections would be cut before the part that differs."""
    is_named = isinstance(value, list) and all(isinstance(item, Mapping) and "name" in item for item in value)
    return [item["name"] for item in value] if is_named else value
