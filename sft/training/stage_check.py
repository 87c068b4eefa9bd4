"""Checks the models that a stage has exported, at its end, where `checkpoint.check_export` asks for it.

It comes after `stage.json`, when the engine is gone and its memory is free: whatever the check finds, and whether or
not it can be made, the stage is finished. The first rank checks, while the others wait for it.
"""

from contextlib import suppress
from pathlib import Path

from sft.atomic_files import is_published, read_json
from sft.parity.parity_result import ParityResult, write_result
from sft.progress import Progress
from sft.ranks.agreement import any_rank
from sft.ranks.shared_work import work_together
from sft.run_folder import RunFolder, StageFolder, check_of
from sft.stage_end import read_stage_end
from sft.training.attempt import Attempt
from sft.training.checkpoint_export import RunModel, read_run
from sft.training.export_check import check_export
from sft.training.exported_folder import ExportedFolder
from sft.world import World


def check_stage(run: RunFolder, stage: StageFolder, attempt: Attempt) -> None:
    """Check the models of a finished stage that are not checked yet; all ranks call this together. Never raises."""
    world = attempt.ranks.world
    due = _due(stage) if world.is_first else {}
    if not any_rank(attempt.ranks, bool(due)):
        return
    attempt.heartbeat.enter("check export")
    counted = Progress()

    def check() -> None:
        for folder, step in due.items():
            result = _checked(run, stage, step, folder, world, counted)
            with suppress(OSError):  # the event says it, too
                write_result(check_of(folder), result)
            text = f"{folder.name} of stage {stage.name}, in plain transformers: {result.in_words}"
            first = next((check.first for check in result.checks if check.num_different), "")
            facts = {"is_equal": result.is_equal, "folder": str(folder)}
            attempt.events.add("export", f"{text}. {first}" if first else text, stage=stage.name, step=step, **facts)

    work_together(attempt.ranks, check, counted)


def _due(stage: StageFolder) -> dict[Path, int]:
    """The folders to check, and of which step each is."""
    end = read_stage_end(stage)
    if end is None:
        return {}
    found = {stage.model: end.num_steps}
    if end.best is not None and end.has_best_model:
        found[stage.best_model] = end.best.step
    return {path: step for path, step in found.items() if is_published(path) and _checked_step(path) != step}


def _checked_step(folder: Path) -> int | None:
    try:
        return int(read_json(check_of(folder))["step"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _checked(
    run: RunFolder, stage: StageFolder, step: int, folder: Path, world: World, counted: Progress
) -> ParityResult:
    alone, dtype = World(device=world.device), ""
    try:
        config = read_run(run)
        model, dtype = RunModel(run, config, stage, step), config.model.dtype
        with model.opened_if_there() as reader:
            return check_export(ExportedFolder(folder, model, dtype), reader, alone, counted.tell)
    except Exception as error:  # no memory, a file that is gone: nothing may cost the stage, which is finished
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        return ParityResult(str(folder), str(run.path), stage.name, step, dtype, (), not_done=reason)
