"""Runs the stages in order, on every rank. Each starts from the model of the last; finished ones are skipped.

All decisions are on disk already: this opens the token store and the plans and never makes them, so that no rank waits
for another to prepare data.
"""

from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from sft.atomic_files import is_published
from sft.checkpoint.open_storage import stage_storage
from sft.checkpoint.retention import delete_stage_checkpoints
from sft.config import SftConfig
from sft.data.planning.pack_plan import PackPlan
from sft.data.rendering.chat_template import load_tokenizer
from sft.data.token_store import TokenStore
from sft.engine.choice import choose_engine
from sft.engine.engines import ENGINES
from sft.evaluation.heldout import HeldoutSet
from sft.model.flash_attention import use_flash
from sft.model.weight_files import finder, weight_files
from sft.progress import Progress
from sft.ranks.agreement import meet, raise_together
from sft.ranks.process_group import leave_waiting_to_the_watch, num_collectives
from sft.ranks.shared_work import work_together
from sft.run_folder import StageFolder
from sft.training.asked import AskedQuestions
from sft.training.attempt import Attempt
from sft.training.determinism import choose_deterministic, choose_experts
from sft.training.kernel_report import tell_kernels
from sft.training.layout import settle_layout
from sft.training.memory_choice import settle_memory
from sft.training.peak_memory import reset_peaks
from sft.training.prepared import Workload
from sft.training.run_context import RunContext
from sft.training.same_weights import check_same_weights
from sft.training.sequence_groups import tell_groups
from sft.training.stage import run_stage
from sft.training.stage_check import check_stage
from sft.training.stage_checkpoints import will_load
from sft.training.stage_inputs import StageInputs
from sft.world import World


def run_curriculum(context: RunContext) -> bool:
    """Run every stage that is not finished; False if stopped on request, with a checkpoint saved."""
    config, workload, attempt, run = context.config, context.workload, context.attempt, context.folder
    ranks, world = attempt.ranks, attempt.ranks.world
    assert world.sequence_parallel == config.train.sequence_parallel
    tell_groups(ranks, attempt.events)
    raise_together(ranks, _unseen_folders(config, world, workload))
    if config.train.deterministic:
        choose_deterministic()
    use_flash(config.train.flash_attention, torch.device(world.device))
    store = TokenStore.open(workload.store)
    tokenizer = load_tokenizer(config.model)
    heldout = None
    if workload.heldout is not None:
        heldout = HeldoutSet(store, PackPlan.open(workload.heldout), workload.unseen_tasks)
    asked = None if workload.questions is None else AskedQuestions.open(workload.questions, config)
    model_path = config.model.path
    engine_name = context.engine or choose_engine(config, world.size)
    if not run.has_finished(stage.name for stage in config.stages):
        config = settle_layout(config, ranks, attempt.events)
        context = replace(context, config=config)
        if (engine_name, config.train.engine) == ("plain", "auto"):
            text = "one worker has nothing to split: the plain engine, without ZeRO-3 (train.engine)"
            attempt.events.add("engine", text, engine=engine_name)
    is_told = False
    for index, stage in enumerate(config.stages):
        folder = run.stage(index, stage.name)
        if not folder.complete.is_file():
            plan = PackPlan.open(workload.plans[index])
            if world.is_first:
                run.sample_answers.unlink(missing_ok=True)  # its model is no longer the last
            _fetch_weights(model_path, attempt)
            attempt.heartbeat.enter("load", stage=stage.name, also_counts=num_collectives)
            check_same_weights(model_path, ranks)
            reset_peaks(world)
            settled = settle_memory(config, index, ranks, attempt.events)
            settled_context = replace(context, config=settled)
            inputs = StageInputs(settled_context, index, store, plan, heldout, tokenizer, model_path, asked)
            awaits_state = will_load(stage_storage(config.checkpoint, folder), inputs.start, attempt)
            engine = ENGINES[engine_name](settled, stage.optimizer, model_path, ranks, awaits_state)
            if not is_told:
                tell_kernels(engine.hf_model, config.model, ranks, attempt.events)
                is_told = True
            if config.train.deterministic:
                choose_experts(engine.hf_model)
            leave_waiting_to_the_watch()
            finished = run_stage(inputs, engine)
            # The next stage's engine needs the memory of this one.
            engine.close()
            del engine
            if not finished:
                return False
            meet(ranks)
        if config.checkpoint.check_export:
            check_stage(run, folder, attempt)
        if not config.checkpoint.keep_stage_ends:
            # Also for a stage that was finished earlier: a killed start may have left them.
            _delete_checkpoints(config, folder, attempt)
        model_path = str(folder.model)
    return True


def _delete_checkpoints(config: SftConfig, folder: StageFolder, attempt: Attempt) -> None:
    """The first rank deletes a finished stage's checkpoints; the others wait as long as it makes progress."""
    attempt.heartbeat.enter("delete checkpoints")
    storage = stage_storage(config.checkpoint, folder) if attempt.ranks.world.is_first else None

    def delete() -> None:
        if storage is not None:
            delete_stage_checkpoints(storage, partial(attempt.events.add, "checkpoint"))

    work_together(attempt.ranks, delete, storage.progress if storage is not None else Progress())


def _fetch_weights(model_path: str, attempt: Attempt) -> None:
    """Fetch a Hub model to every node: one rank of each node fetches it, the others wait while it makes progress."""
    if Path(model_path).expanduser().is_dir():
        return
    attempt.heartbeat.enter("download")
    fetched = Progress()

    def fetch() -> None:
        if attempt.ranks.world.local_rank == 0:
            weight_files(model_path, finder(model_path, download=True, tell=fetched.tell))

    work_together(attempt.ranks, fetch, fetched)


def _unseen_folders(config: SftConfig, world: World, workload: Workload) -> str | None:
    """The needed folders that this node does not see, in words."""
    unseen = [str(path) for path in (workload.store, *workload.plans) if not is_published(path)]
    # A local model is absolute here (see `absolute_paths`); anything else is a Hub id.
    unseen += [path for path in (config.model.path,) if Path(path).is_absolute() and not Path(path).is_dir()]
    if not unseen:
        return None
    return (
        f"node {world.node} does not see {', '.join(unseen)}. "
        "Needed: run.dir, data.cache_dir and a local model in a file system that all nodes share."
    )
