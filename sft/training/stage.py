"""Runs one stage on its engine: loader, schedule, checkpoints and loop; at its end the model, then `stage.json`.

A stage is a function of the model that it starts from and of its plan. It resumes at the exact next step after the
newest checkpoint. Once `stage.json` is there, it is never run again.
"""

import time
from contextlib import closing, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from sft.atomic_files import write_json
from sft.cadence import Cadence
from sft.checkpoint.export import export_model
from sft.checkpoint.open_storage import stage_storage
from sft.config import FromConfig, SftConfig
from sft.data.learned_stops import learned_stop_ids
from sft.data.loader import StepLoader
from sft.data.planning.pack_plan import PackPlan
from sft.data.rendering.chat_template import control_ids
from sft.data.staging import StagingOrder
from sft.data.token_store import TokenStore
from sft.engine.engine import Engine
from sft.evaluation.heldout import HeldoutSet, TokenEvaluator
from sft.evaluation.scores import Evaluator, evaluate
from sft.ledger import LedgerWriter
from sft.model.attention import layout_of
from sft.ranks.agreement import any_rank
from sft.recomputed_layers import packs_or_one
from sft.run_folder import StageFolder, answers_of
from sft.seeds import derive_seed
from sft.step_plan import StepPlan
from sft.training.asked import AskedQuestions
from sft.training.attempt import Attempt
from sft.training.layout import try_layout
from sft.training.lookahead import LookAhead
from sft.training.loop import Loop
from sft.training.lr_schedule import StageSchedule
from sft.training.mfu_meter import MfuMeter
from sft.training.run_context import RunContext
from sft.training.skipping import SkipRule
from sft.training.stage_checkpoints import load_state, open_saver
from sft.training.staging import Staging
from sft.training.step_exchange import StepExchange
from sft.training.step_recorder import StepRecorder
from sft.world import World


@dataclass(frozen=True)
class StageInputs:
    """What a stage needs besides its engine."""

    context: RunContext
    index: int
    store: TokenStore
    plan: PackPlan
    heldout: HeldoutSet | None
    tokenizer: Any
    model_path: str
    """Where the engine's model was loaded from."""
    asked: AskedQuestions | None = None
    """What the model is asked whenever it is measured."""

    @property
    def config(self) -> SftConfig:
        """The run's config."""
        return self.context.config

    @property
    def attempt(self) -> Attempt:
        """This start of the job."""
        return self.context.attempt

    @property
    def start(self) -> FromConfig | None:
        """Where the stage starts, if in another run."""
        return self.config.from_ if self.index == 0 else None

    @property
    def folder(self) -> StageFolder:
        """The stage's folder in the run folder."""
        return self.context.folder.stage(self.index, self.config.stages[self.index].name)


def run_stage(inputs: StageInputs, engine: Engine) -> bool:
    """Train the stage to its end and publish its model; False if it was stopped earlier on request."""
    config, world, attempt = inputs.config, engine.ranks.world, inputs.attempt
    stage, folder = config.stages[inputs.index], inputs.folder
    steps = inputs.plan.steps(world.data_size, packs_or_one(config.train.packs_per_micro_batch))
    schedule = StageSchedule.of(stage.optimizer, inputs.plan)
    skip = SkipRule(config.train.non_finite, config.train.max_skipped_steps, attempt.events, world)
    storage = stage_storage(config.checkpoint, folder)
    about = {"stage": stage.name, "plan": inputs.plan.first_inputs, "optimizer": stage.optimizer.name}
    started = time.perf_counter()
    first_step, skip.num_skipped = load_state(engine, storage, inputs.start, attempt, about)
    if world.is_first:
        shared = f", {world.sequence_parallel} to a micro-batch" if world.sequence_parallel > 1 else ""
        where = f"going on at step {first_step} of {stage.name}" if first_step else f"stage {stage.name} begins"
        text = f"attempt {attempt.number}: {where}, with {world.size} rank{'s' if world.size > 1 else ''}{shared}"
        seconds = time.perf_counter() - started
        attempt.events.add("resumed", text, stage=stage.name, step=first_step, load_seconds=seconds)
    attempt.heartbeat.enter("probe")
    try_layout(engine, config)
    staging = _staging(inputs, world, steps, first_step) if config.data.staging == "node_local" else None
    read_staged = staging.read if staging else None
    is_random = config.model.dropout == "as_configured"
    dropout_seed = derive_seed(config.run.seed, "dropout", stage.name) if is_random else None
    layout = layout_of(config.train.packing)
    loader = StepLoader(
        inputs.store,
        inputs.plan,
        steps,
        world.data_rank,
        read_staged,
        layout,
        dropout_seed,
        world.sequence_place,
        world.num_parts,
    )
    ledger = None
    if world.is_first:
        ledger = LedgerWriter(folder.ledger, attempt.number)
        ledger.resume(first_step)

    if inputs.index == 0 and first_step == 0:
        _evaluate(engine, inputs, None)
    evaluations = Cadence.of(config.evaluate, steps.num_steps, inputs.plan.epochs)
    if evaluations.is_due(first_step) and first_step < steps.num_steps:
        # It was due when the checkpoint was saved, but may be missing: the attempt may have ended before it.
        _evaluate(engine, inputs, folder, first_step)
    checkpoints = open_saver(storage, config.checkpoint, attempt, ledger)
    loop = Loop(
        engine=engine,
        loader=loader,
        ahead=(ahead := LookAhead(loader, steps.num_steps, world)),
        schedule=schedule,
        skip=skip,
        checkpoints=checkpoints,
        saves=Cadence.of(config.checkpoint, steps.num_steps, inputs.plan.epochs),
        save_every_minutes=config.checkpoint.every_minutes,
        checkpoint_manifest=about,
        exchange=StepExchange(engine, steps),
        record=_recorder(inputs, loader, schedule, ledger) if ledger else _no_record,
        signals=inputs.context.signals,
        evaluate=partial(_evaluate, engine, inputs, folder, again=True),
        evaluations=evaluations,
        heartbeat=attempt.heartbeat,
    )
    with closing(checkpoints), closing(staging) if staging else nullcontext(), closing(ahead):
        if not loop.run(first_step):
            return False
    if staging:
        staging.finish(engine)
    _evaluate(engine, inputs, folder)
    dtype = getattr(torch, config.model.dtype)
    attempt.heartbeat.enter("export")
    stop_ids = learned_stop_ids(inputs.store, control_ids(inputs.tokenizer)) if world.is_first else ()
    export_model(engine, inputs.tokenizer, folder.model, dtype, attempt.number, stop_ids)
    if world.is_first:
        write_json(folder.complete, {"stage": stage.name, "num_steps": steps.num_steps, "attempt": attempt.number})
    return True


def _staging(inputs: StageInputs, world: World, steps: StepPlan, first_step: int) -> Staging:
    folder, staging_dir = inputs.folder, inputs.config.data.staging_dir
    report = inputs.attempt.folder.staging_report(folder, world.rank)
    order = StagingOrder(
        node=world.node,
        ranks=world.node_data_ranks,
        world_size=world.data_size,
        packs_per_micro_batch=steps.packs_per_micro_batch,
        first_step=first_step,
        store=inputs.store.path,
        plan=inputs.plan.path,
        staging_dir=staging_dir,
        report=report,
    )
    staging = Staging(order, inputs.store, inputs.plan, inputs.attempt.events)
    if world.local_rank == 0:
        staging.start(inputs.context.fetch)
    return staging


def _recorder(inputs: StageInputs, loader: StepLoader, schedule: StageSchedule, ledger: LedgerWriter) -> StepRecorder:
    config, folder, attempt = inputs.config, inputs.folder, inputs.attempt
    stage = config.stages[inputs.index]
    mfu_meter = MfuMeter(config.model.path, attempt.ranks.world)
    return StepRecorder(stage.name, loader, schedule, attempt, ledger, mfu_meter, folder.metrics)


def _evaluate(
    engine: Engine, inputs: StageInputs, folder: StageFolder | None, num_steps: int | None = None, again: bool = False
) -> None:
    """Measure the model, if the run measures: before the first stage, at the end of this one, or after `num_steps`.

    Unless `again`, only if it is not on record.
    """
    heldout = inputs.heldout
    if heldout is None:
        return
    path = inputs.context.folder.evaluation(folder, num_steps)
    # The first rank decides: on a shared file system, others may see the file at different times and disagree.
    if not again and any_rank(engine.ranks, engine.ranks.world.is_first and path.is_file()):
        return
    tell = partial(inputs.attempt.heartbeat.enter, "evaluate", num_steps)
    config = inputs.config
    evaluators: list[Evaluator] = [TokenEvaluator(engine, heldout, tell, layout_of(config.train.packing))]
    if inputs.asked is not None:
        ask = inputs.asked.ask_engine(engine, config, inputs.model_path, tell)
        evaluators.append(inputs.asked.evaluator(ask, engine.ranks, config.evaluate, answers_of(path), path.stem))
    evaluation = evaluate(evaluators, folder.name if folder else "base", heldout.unseen_tasks, num_steps)
    if engine.ranks.world.is_first:
        # Tables, the report and the sinks read this file.
        write_json(path, evaluation.as_json())


def _no_record(*_: object) -> None:
    """The other ranks record nothing."""
