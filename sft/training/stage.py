"""Runs one stage on its engine: loader, schedule, checkpoints and loop; at its end the model, then `stage.json`.

A stage is a function of the model that it starts from and of its plan. It resumes at the newest checkpoint, at the
exact next step; when `stage.json` is there it is never run again.
"""

from dataclasses import dataclass
from typing import Any

import torch

from sft.atomic_files import write_json
from sft.checkpoint.export import export_model
from sft.checkpoint.store import CheckpointReader, CheckpointStore, checkpoint_path, published_steps
from sft.config import SftConfig
from sft.data.loader import StepLoader
from sft.data.planning.pack_plan import PackPlan
from sft.data.token_store import TokenStore
from sft.engine.engine import Engine, StepResult
from sft.evaluation.heldout import HeldoutSet, measure_heldout, write_evaluation
from sft.run_folder import RunFolder, StageFolder
from sft.step_plan import StepPlan
from sft.training.loop import Loop
from sft.training.lr_schedule import LrSchedule
from sft.training.step_recorder import StepRecorder
from sft.training.stop_request import StopRequest


@dataclass(frozen=True)
class StageInputs:
    """What a stage is run with, besides its engine."""

    config: SftConfig
    index: int
    store: TokenStore
    plan: PackPlan
    heldout: HeldoutSet | None
    tokenizer: Any
    attempt: int
    stop: StopRequest

    @property
    def folder(self) -> StageFolder:
        """The stage's folder in the run folder."""
        return RunFolder(self.config.run.dir).stage(self.index, self.config.stages[self.index].name)


def run_stage(inputs: StageInputs, engine: Engine) -> bool:
    """Train the stage to its end and publish its model; False if it was stopped on request before."""
    config, world = inputs.config, engine.world
    stage, folder, run = config.stages[inputs.index], inputs.folder, RunFolder(config.run.dir)
    steps = StepPlan(len(inputs.plan), config.train.packs_per_step, world.size, config.train.micro_packs)
    loader = StepLoader(inputs.store, inputs.plan, steps, world.rank)
    schedule = LrSchedule(stage.optimizer, steps.num_steps)
    checkpoints = CheckpointStore(
        folder.checkpoints, world, inputs.attempt, config.checkpoint.keep_last, config.checkpoint.async_
    )
    first_step = _resume(engine, folder)

    def evaluate(num_done: int) -> None:
        _evaluate(engine, inputs, f"{folder.path.name}-step-{num_done:08d}", stage.name, num_done)

    if inputs.index == 0 and first_step == 0:
        _evaluate(engine, inputs, "base", "base", None)
    record = _no_record
    if world.is_first:
        board = run.tensorboard / stage.name if config.logging.tensorboard else None
        record = StepRecorder(stage.name, loader, schedule, inputs.attempt, folder.metrics, board)
    loop = Loop(
        engine=engine,
        loader=loader,
        schedule=schedule,
        checkpoints=checkpoints,
        checkpoint=config.checkpoint,
        checkpoint_manifest={"stage": stage.name, "plan": inputs.plan.manifest["inputs"]},
        record=record,
        stop_is_requested=inputs.stop.is_made,
        evaluate=evaluate,
        evaluate_every_steps=config.evaluate.every_steps,
    )
    if not loop.run(first_step):
        return False
    _evaluate(engine, inputs, folder.path.name, stage.name, None)
    export_model(engine, inputs.tokenizer, folder.model, getattr(torch, config.model.dtype), inputs.attempt)
    if world.is_first:
        write_json(folder.complete, {"stage": stage.name, "num_steps": steps.num_steps, "attempt": inputs.attempt})
    return True


def _resume(engine: Engine, folder: StageFolder) -> int:
    """Load the newest checkpoint into the engine; the number of steps it has done, 0 where there is none."""
    # The newest that any rank sees: a shared file system may show it to some later than to others.
    seen = max(published_steps(folder.checkpoints), default=0)
    newest = int(engine.all_reduce_max(torch.tensor([seen])).item())
    if newest:
        with CheckpointReader(checkpoint_path(folder.checkpoints, newest)) as reader:
            engine.load_local_state(reader.read, newest)
    return newest


def _evaluate(engine: Engine, inputs: StageInputs, file_name: str, name: str, step: int | None) -> None:
    folder = RunFolder(inputs.config.run.dir).evaluations
    if inputs.heldout is None:
        return
    # The first rank decides: on a shared file system the others may see its file later, and not take part.
    is_done = engine.world.is_first and step is None and (folder / f"{file_name}.json").is_file()
    if engine.all_reduce_max(torch.tensor([float(is_done)])).item():
        return
    evaluation = measure_heldout(engine, inputs.heldout, name, step)
    if engine.world.is_first:
        write_evaluation(folder, file_name, evaluation)


def _no_record(step: int, result: StepResult, seconds: float, stall_seconds: float) -> None:
    """The other ranks record nothing."""
