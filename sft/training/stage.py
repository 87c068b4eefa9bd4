"""Runs one stage on its engine: loader, schedule, checkpoints and loop; at its end the model, then `stage.json`.

A stage is a function of the model that it starts from and of its plan. It resumes at the exact next step after the
newest checkpoint. Once `stage.json` is there, it is never run again.
"""

import time
from contextlib import closing, nullcontext
from functools import partial

from sft.answer_files import answers_of
from sft.atomic_files import write_json
from sft.cadence import Cadence, cadence_of_saves
from sft.checkpoint.open_storage import stage_storage
from sft.data.loader import StepLoader
from sft.data.staging import StagingOrder
from sft.engine.engine import Engine
from sft.errors import TrainingError
from sft.evaluation.heldout import TokenEvaluator
from sft.evaluation.scores import Evaluator, evaluate
from sft.ledger import LedgerWriter
from sft.model.attention import layout_of
from sft.ranks.agreement import any_rank
from sft.recomputed_layers import packs_or_one
from sft.run_folder import StageFolder
from sft.seeds import derive_seed
from sft.step_plan import StepPlan
from sft.training.decisions import Decisions, Verdict
from sft.training.layout import try_layout
from sft.training.lookahead import LookAhead
from sft.training.loop import Loop
from sft.training.lr_schedule import StageSchedule
from sft.training.mfu_meter import MfuMeter
from sft.training.skipping import SkipRule
from sft.training.stage_checkpoints import load_state, open_saver
from sft.training.stage_ending import end_stage, forget_end, take_as_end
from sft.training.stage_inputs import StageInputs
from sft.training.staging import Staging
from sft.training.step_exchange import StepExchange
from sft.training.step_recorder import StepRecorder
from sft.world import World


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

    if inputs.index == 0 and first_step == 0 and config.evaluate.before_training:
        _evaluate(engine, inputs, None)
    decisions = inputs.decisions()
    judge = partial(_judge, engine, inputs, decisions)
    evaluations = Cadence.of(config.evaluate, steps.num_steps, inputs.plan.epochs)
    num_steps = steps.num_steps
    if evaluations.is_due(first_step) and first_step < num_steps:
        # It was due when the checkpoint was saved, but may be missing: the attempt may have ended before it.
        verdict = judge(first_step)
        _refuse_forgotten(verdict)
        num_steps = first_step if verdict.is_end else num_steps
    if world.is_first and first_step < num_steps:
        forget_end(inputs.context.folder, folder)
    checkpoints = open_saver(storage, config.checkpoint, attempt, ledger, decisions.find_best)
    loop = Loop(
        engine=engine,
        loader=loader,
        ahead=(ahead := LookAhead(loader, steps.num_steps, world)),
        schedule=schedule,
        skip=skip,
        checkpoints=checkpoints,
        saves=cadence_of_saves(config, steps.num_steps, inputs.plan.epochs),
        save_every_minutes=config.checkpoint.every_minutes,
        checkpoint_manifest=about,
        exchange=StepExchange(engine, steps),
        record=_recorder(inputs, loader, schedule, ledger) if ledger else _no_record,
        signals=inputs.context.signals,
        judge=partial(judge, again=True),
        evaluations=evaluations,
        heartbeat=attempt.heartbeat,
    )
    with closing(checkpoints), closing(staging) if staging else nullcontext(), closing(ahead):
        ended = loop.run(first_step, num_steps)
        if ended is None:
            return False
    if staging:
        staging.finish(engine)
    if ended < steps.num_steps:
        take_as_end(inputs, ended)
    _refuse_forgotten(judge(None))
    end_stage(inputs, engine, storage, decisions, ended, steps.num_steps)
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


def _judge(
    engine: Engine, inputs: StageInputs, decisions: Decisions, num_steps: int | None, again: bool = False
) -> Verdict:
    """Measure the stage's model, and say what follows; see `_evaluate`."""
    is_new = _evaluate(engine, inputs, inputs.folder, num_steps, again)
    return Verdict() if inputs.heldout is None else decisions.after(num_steps, is_new)


def _refuse_forgotten(verdict: Verdict) -> None:
    if verdict.forgotten is not None:
        raise TrainingError(verdict.forgotten, is_everywhere=True)


def _evaluate(
    engine: Engine, inputs: StageInputs, folder: StageFolder | None, num_steps: int | None = None, again: bool = False
) -> bool:
    """Measure the model, if the run measures: before the first stage, at the end of this one, or after `num_steps`.

    Unless `again`, only if it is not on record. Returns whether it was measured.
    """
    heldout = inputs.heldout
    if heldout is None:
        return False
    path = inputs.context.folder.evaluation(folder, num_steps)
    # The first rank decides: on a shared file system, others may see the file at different times and disagree.
    if not again and any_rank(engine.ranks, engine.ranks.world.is_first and path.is_file()):
        return False
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
    return True


def _no_record(*_: object) -> None:
    """The other ranks record nothing."""
