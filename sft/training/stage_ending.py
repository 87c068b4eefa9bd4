"""Ends a stage: its model, the best of its models where that is another one, and last `stage.json`.

    model/        of the last step         model-best/    of the best evaluated step, if it is an earlier one

The best model is not written a second time where it is the last one: it may take hundreds of GB. `stage.json` names the
step of the best model, so nobody has to guess which of the two it is.
"""

import shutil
from functools import partial

import torch

from sft.answer_files import answers_of
from sft.atomic_files import is_published, read_json, read_manifest, write_json
from sft.checkpoint.export import About, export_model
from sft.checkpoint.storage import CheckpointStorage
from sft.data.learned_stops import learned_stop_ids
from sft.data.rendering.chat_template import control_ids
from sft.engine.engine import Engine
from sft.evaluation.model_card import model_card
from sft.ranks.agreement import any_rank
from sft.run_folder import RunFolder, StageFolder, check_of
from sft.stage_end import BestStep, StageEnd, end_in_words, write_stage_end
from sft.training.decisions import Decisions
from sft.training.run_record import about_model
from sft.training.stage_checkpoints import load_step
from sft.training.stage_inputs import StageInputs


def forget_end(run: RunFolder, stage: StageFolder) -> None:
    """Remove what a killed start has published for an end at which the stage does not end any more.

    The first rank calls this before it trains on: the budget or a rule of the config has changed since then.
    """
    for path in (stage.model, stage.best_model):
        if path.exists():
            shutil.rmtree(path)
        check_of(path).unlink(missing_ok=True)
    measured = run.evaluation(stage)
    for file in (measured, answers_of(measured)):
        file.unlink(missing_ok=True)


def take_as_end(inputs: StageInputs, num_steps: int) -> None:
    """Let the evaluation after so many steps be that of the stage's end, too: the model is the same."""
    run, stage = inputs.context.folder, inputs.folder
    within, end = run.evaluation(stage, num_steps), run.evaluation(stage)
    if not inputs.attempt.ranks.world.is_first or end.is_file():
        return
    if answers_of(within).is_file():
        shutil.copyfile(answers_of(within), answers_of(end))
    # Sinks may read it before `stage.json` is there.
    write_json(end, {**read_json(within), "step": None, "num_steps": num_steps})


def end_stage(
    inputs: StageInputs,
    engine: Engine,
    storage: CheckpointStorage,
    decisions: Decisions,
    num_steps: int,
    num_planned: int,
) -> None:
    """Publish what the stage leaves; all ranks call it together, and the engine is of no use afterwards.

    Args:
        inputs: of the stage, which has been evaluated.
        engine: has the model after the last step.
        storage: has the checkpoints of earlier steps.
        decisions: say which of them is the best.
        num_steps: after which the stage ends.
        num_planned: the steps of its plan.
    """
    config, attempt, folder = inputs.config, inputs.attempt, inputs.folder
    is_first, dtype = attempt.ranks.world.is_first, getattr(torch, config.model.dtype)
    attempt.heartbeat.enter("export")
    stop_ids = learned_stop_ids(inputs.store, control_ids(inputs.tokenizer)) if is_first else ()
    made = about_model(RunFolder(config.run.dir))
    about = About(partial(model_card, config, inputs.store, folder, num_steps, is_end=True), made)
    export_model(engine, inputs.tokenizer, folder.model, dtype, attempt.number, stop_ids, about)
    best, rule = None, config.checkpoint.best
    gone: list[int] = []
    for step, value in decisions.ranked(num_steps) if rule is not None and inputs.heldout is not None else ():
        assert rule is not None
        if step != num_steps and not _is_there(inputs, step):
            if not load_step(engine, storage, step, attempt):
                gone.append(step)
                continue
            attempt.heartbeat.enter("export")
            about = About(partial(model_card, config, inputs.store, folder, step, is_end=False), {"step": step, **made})
            export_model(engine, inputs.tokenizer, folder.best_model, dtype, attempt.number, stop_ids, about)
        best = BestStep(step, value, rule.score, rule.task, tuple(gone))
        break
    if is_first:
        is_early = num_steps < num_planned
        num_flat = rule.stop_when_flat if rule is not None and is_early else None
        end = StageEnd(inputs.config.stages[inputs.index].name, num_steps, attempt.number, num_planned, best, num_flat)
        if best is not None:
            attempt.events.add("ended", end_in_words(end), stage=end.stage, step=num_steps)
        write_stage_end(folder, end)


def _is_there(inputs: StageInputs, step: int) -> bool:
    """Whether a killed start has published the best model, and it is of this step; one of another step is removed."""
    ranks, path = inputs.attempt.ranks, inputs.folder.best_model
    mine = ranks.world.is_first and is_published(path)
    if mine and read_manifest(path).get("step") != step:
        shutil.rmtree(path)
        mine = False
    return any_rank(ranks, mine)
