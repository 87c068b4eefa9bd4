"""Verifies a run folder: notes the state of its stages, hashes what they published, compares ledger and plan."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from sft.atomic_files import fingerprint, is_published, read_manifest
from sft.checkpoint.open_storage import stage_storage
from sft.checkpoint.storage import CheckpointStorage
from sft.config import SftConfig
from sft.config_file import build_config, read_yaml
from sft.data.planning.pack_plan import PackPlan
from sft.data.token_store import store_path
from sft.errors import UserError
from sft.ledger import read_ledger
from sft.run_folder import RunFolder, StageFolder
from sft.run_restarts import read_restarts, restart_steps
from sft.stage_end import StageEnd, read_stage_end
from sft.verification.artifacts import (
    Artifact,
    ArtifactsChecked,
    ReportProgress,
    check_artifacts,
    checkpoint_artifact,
    folder_artifact,
)
from sft.verification.end_check import check_end
from sft.verification.findings import Findings, Kind, KindFindings
from sft.verification.stage_check import StageCheck, StageState, StageVerified


@dataclass(frozen=True, slots=True)
class RunVerified:
    """What was verified, and what is wrong with it."""

    stages: tuple[StageVerified, ...]
    """Stages that have begun and whose ledger could be compared with a plan."""
    began_with: str | None
    """The stage of another run that this one began with, in words, if any."""
    num_stages_planned: int
    num_restarts: int
    """Of the run; not all got so far as to train."""
    restarts: Mapping[str, tuple[int, ...]]
    """Stage → the steps from which a later attempt trained it."""
    files: ArtifactsChecked
    quarantined: tuple[str, ...]
    """Checkpoints that were found damaged in training, and replaced by older ones."""
    findings: tuple[KindFindings, ...]

    @property
    def is_finished(self) -> bool:
        """Whether every stage of the config is finished."""
        return len(self.stages) == self.num_stages_planned and all(stage.is_finished for stage in self.stages)


class _Stage(NamedTuple):
    folder: StageFolder
    storage: CheckpointStorage
    steps_saved: tuple[int, ...]
    quarantined: tuple[str, ...]
    state: StageState | None


def verify_run(run: RunFolder, report: ReportProgress = lambda what, num_done, num_total: None) -> RunVerified:
    """Verify everything that the run folder has published so far, and the token store that it was trained on.

    Raises:
        UserError: this is not the folder of a run, or its config cannot be read.
    """
    if not run.config.is_file():
        raise UserError(f"{run.path} is not the folder of a run: there is no {run.config.name} in it")
    config = build_config(read_yaml(run.config).content, str(run.config))
    findings = Findings()
    # Note how far all stages are before the hashing: it takes long, and a run under way goes on meanwhile.
    stages = [_look(config, run.stage(i, stage.name), stage.name, findings) for i, stage in enumerate(config.stages)]
    stores = _find_stores(config, stages, findings)
    files = check_artifacts(_list_artifacts(run, config, stages, stores), findings, report)
    verified = _check_stages(run, stages, stores, files, findings, report)
    quarantined = tuple(path for stage in stages for path in stage.quarantined)
    start = config.from_
    began_with = f"stage {start.stage} of {start.run}, after {start.step} steps of it" if start else None
    steps = restart_steps(stage.state.ledger.resumes if stage.state else () for stage in stages)
    restarts = dict(zip((stage.name for stage in config.stages), steps, strict=True))
    return RunVerified(
        verified,
        began_with,
        len(stages),
        len(read_restarts(run)),
        restarts,
        files,
        quarantined,
        findings.results(),
    )


def _look(config: SftConfig, folder: StageFolder, name: str, findings: Findings) -> _Stage:
    end = _read_end(folder, name, findings)
    # Checkpoints before the ledger, which is written first: it must cover each of them.
    storage = stage_storage(config.checkpoint, folder)
    steps_saved: tuple[int, ...] = ()
    quarantined: tuple[str, ...] = ()
    newest = 0
    try:
        steps_saved, quarantined = tuple(storage.steps()), tuple(storage.damaged())
        newest = max((step for step in steps_saved if storage.is_published(step)), default=0)
    except OSError as error:
        findings.add(Kind.FILES, f"stage {name}: its checkpoints cannot be listed: {error}")
    ledger = read_ledger(folder.ledger) if folder.ledger.is_file() else None
    needed = [] if end is None else [folder.model, *([folder.best_model] if end.has_best_model else [])]
    for model in needed:
        if not is_published(model):
            findings.add(Kind.FILES, f"stage {name} is finished, but its model is not published at {model}")
    if (end is not None or ledger is not None) and not is_published(folder.packs):
        findings.add(Kind.FILES, f"stage {name} was trained, but its plan is not published at {folder.packs}")
    if ledger is None and (end is not None or steps_saved or folder.metrics.is_file()):
        text = f"stage {name} was trained, but has no {folder.ledger.name}: nothing shows what was fed"
        findings.add(Kind.LEDGER, text)
    state = StageState(name, end, newest, ledger) if ledger is not None else None
    return _Stage(folder, storage, steps_saved, quarantined, state)


def _read_end(folder: StageFolder, name: str, findings: Findings) -> StageEnd | None:
    """How the stage ended. A damaged record counts as one of an end after all steps, so that nothing passes for it."""
    try:
        return read_stage_end(folder)
    except (OSError, ValueError, KeyError, TypeError) as error:
        findings.add(Kind.FILES, f"stage {name}: {folder.complete} cannot be read: {error}")
        return StageEnd(name, 0, 0)


def _find_stores(config: SftConfig, stages: Sequence[_Stage], findings: Findings) -> dict[Path, Path]:
    """The place of the token store of each published plan; the stages of a run share one."""
    stores = {}
    for folder in (stage.folder for stage in stages if is_published(stage.folder.packs)):
        try:
            inputs = read_manifest(folder.packs)["inputs"]
            name, content = inputs["store"], inputs["data"]
        except (OSError, ValueError, KeyError, TypeError):
            continue  # reported when its files are checked
        # The name is the fingerprint of what the store is made from (see `sft.data.store_recipe`).
        if fingerprint(content) != name:
            findings.add(Kind.FILES, f"{folder.packs}: the data that it names is not that of the store {name}")
        stores[folder.packs] = store_path(config.data.cache_dir, name)
    for path in sorted(set(stores.values())):
        if not is_published(path):
            text = (
                f"the token store {path} is not there, so what was fed cannot be compared; "
                "restore it (`sft prepare` makes it again)"
            )
            findings.add(Kind.FILES, text)
    return stores


def _list_artifacts(
    run: RunFolder, config: SftConfig, stages: Sequence[_Stage], stores: Mapping[Path, Path]
) -> list[Artifact]:
    folders = [("token store", path) for path in sorted(set(stores.values()))]
    folders.append(("plan of what is held out", run.heldout_packs))
    folders += [("exported model", path) for path in sorted(run.exports.glob("*/"))]
    checkpoints = []
    for stage, (folder, storage, steps_saved, _, _) in zip(config.stages, stages, strict=True):
        folders += [(f"stage {stage.name}, plan", path) for path in folder.plans()]
        folders += [(f"stage {stage.name}, model", path) for path in (folder.model, *folder.earlier_models())]
        best_models = (folder.best_model, *folder.earlier_models(folder.best_model))
        folders += [(f"stage {stage.name}, best model", path) for path in best_models]
        checkpoints += [
            checkpoint_artifact(f"stage {stage.name}, checkpoint after {step} steps", storage, step)
            for step in steps_saved
        ]
    return [folder_artifact(name, path) for name, path in folders if is_published(path)] + checkpoints


def _check_stages(
    run: RunFolder,
    stages: Sequence[_Stage],
    stores: Mapping[Path, Path],
    files: ArtifactsChecked,
    findings: Findings,
    report: ReportProgress,
) -> tuple[StageVerified, ...]:
    checks: list[tuple[StageCheck, Path]] = []
    for folder, _, _, _, state in stages:
        if state is not None and state.end is not None:
            check_end(run, folder, state.end, findings)
        # A damaged plan is not worth comparing; the damage was already reported.
        if state is not None and folder.packs in stores and str(folder.packs) not in files.damaged:
            check = StageCheck(state, PackPlan.open(folder.packs), findings)
            check.check()
            checks.append((check, stores[folder.packs]))
    num_packs, num_read = sum(check.num_packs for check, _ in checks), 0

    def read(num: int) -> None:
        nonlocal num_read
        num_read += num
        report("comparing", num_read, num_packs)

    return tuple(
        check.compare(path, read) if is_published(path) and str(path) not in files.damaged else check.counted()
        for check, path in checks
    )
