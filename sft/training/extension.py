"""Moves aside what a stage published at its end when the stage is extended; nothing is lost.

model/              → model-step-00000100/            the model after that many steps
stage.json          → stage-step-00000100.json        the stage is under way again
evaluations/0-broad.json → 0-broad-step-00000100.json a measurement within the stage now, and its answers
"""

import shutil

from sft.atomic_files import read_json, sync_folder
from sft.checkpoint.open_storage import stage_storage
from sft.config import CheckpointConfig
from sft.errors import UserError
from sft.run_folder import RunFolder, StageFolder, answers_of


def set_end_aside(run: RunFolder, checkpoint: CheckpointConfig, folder: StageFolder) -> None:
    """Turn a finished stage into one that is under way. A stage that has not ended stays as it is.

    Raises:
        UserError: it keeps no checkpoint, or they cannot be listed, so it cannot go on.
    """
    if not folder.complete.is_file():
        return
    storage = stage_storage(checkpoint, folder)
    num_steps = int(read_json(folder.complete)["num_steps"])
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
    kept_as = {path: folder.ended_after(num_steps, path) for path in (measured, folder.model, folder.complete)}
    # The file that marks the stage as finished comes last: after a kill, the next start renames the rest.
    for path, kept in {answers_of(measured): answers_of(kept_as[measured]), **kept_as}.items():
        if kept.is_dir() and path.exists():
            shutil.rmtree(path)  # an earlier extension was undone: the same model again
        elif path.exists():
            path.rename(kept)
            sync_folder(path.parent)
