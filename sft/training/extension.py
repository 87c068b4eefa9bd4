"""Moves aside what a stage published at its end when the stage is extended; nothing is lost.

model/              → model-step-00000100/            the model after that many steps
model-best/         → model-best-step-00000100/       the best model up to there; what a check found goes with it
stage.json          → stage-step-00000100.json        the stage is under way again
evaluations/0-broad.json → 0-broad-step-00000100.json a measurement within the stage now, and its answers
"""

import shutil

from sft.answer_files import answers_of
from sft.atomic_files import sync_folder
from sft.checkpoint.open_storage import stage_storage
from sft.config import CheckpointConfig
from sft.errors import UserError
from sft.evaluation.best_step import read_curve
from sft.run_folder import RunFolder, StageFolder, check_of
from sft.stage_end import StageEnd, read_stage_end


def set_end_aside(run: RunFolder, checkpoint: CheckpointConfig, folder: StageFolder) -> None:
    """Turn a finished stage into one that is under way. A stage that has not ended stays as it is.

    Raises:
        UserError: it keeps no checkpoint, or they cannot be listed, so it cannot go on; or it would end at once.
    """
    end = read_stage_end(folder)
    if end is None:
        return
    _refuse_flat(run, checkpoint, folder, end)
    storage, num_steps = stage_storage(checkpoint, folder), end.num_steps
    try:
        is_kept = any(storage.is_published(step) for step in storage.steps())
    except OSError as error:
        raise UserError(f"checkpoint.dir: the checkpoints of {folder.path.name} cannot be listed: {error}") from error
    if not is_kept:
        raise UserError(
            f"{folder.path} is finished and keeps no checkpoint (checkpoint.keep_stage_ends), so its optimizer's state "
            "is gone, and it cannot be extended. Add a stage after it instead, which starts from its model."
        )
    measured = run.evaluation(folder)
    # The file that marks the stage as finished comes last: after a kill, the next start renames the rest.
    within = run.evaluation(folder, num_steps)
    models = {model: folder.ended_after(num_steps, model) for model in (folder.model, folder.best_model)}
    kept_as = {
        **{check_of(model): check_of(kept) for model, kept in models.items()},
        answers_of(measured): answers_of(within),
        measured: within,
        **models,
        folder.complete: folder.ended_after(num_steps, folder.complete),
    }
    for path, kept in kept_as.items():
        if kept.is_dir() and path.exists():
            shutil.rmtree(path)  # an earlier extension was undone: the same model again
        elif path.exists():
            path.rename(kept)
            sync_folder(path.parent)


def _refuse_flat(run: RunFolder, checkpoint: CheckpointConfig, folder: StageFolder, end: StageEnd) -> None:
    """Refuse to extend a stage that the rule by which it ended before its budget would end again at once."""
    best = checkpoint.best
    if not end.is_early or best is None:
        return
    if read_curve(run, folder, best.score, best.task, end.num_steps).is_flat(best):
        raise UserError(
            f"stage {end.stage} ended after step {end.num_steps} of {end.num_steps_planned}, because its last "
            f"{best.stop_when_flat} evaluations were not better, so more budget would not be trained. Set "
            "checkpoint.best.stop_when_flat to a larger number or to null to extend it, or append a stage."
        )
