"""Runs the stages in order, on every rank. Each starts from the model of the one before; a finished one is skipped.

Everything that is decided is on disk before: the token store and the plans are opened here, never made, so that no
rank waits for another to prepare data.
"""

from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import torch.distributed as dist

from sft.atomic_files import is_published
from sft.checkpoint.open_place import stage_place
from sft.checkpoint.retention import delete_stage_checkpoints
from sft.config import OptimizerConfig, SftConfig
from sft.data.planning.pack_plan import PackPlan
from sft.data.rendering.chat_template import load_tokenizer
from sft.data.staging import fetch_packs
from sft.data.token_store import TokenStore
from sft.engine.engine import Engine
from sft.evaluation.heldout import HeldoutSet
from sft.model.weight_files import finder, weight_files
from sft.progress import Progress
from sft.run_folder import RunFolder, StageFolder
from sft.training.agreement import raise_on_all_ranks
from sft.training.attempt import Attempt
from sft.training.layout import settle_layout
from sft.training.peak_memory import reset_peaks
from sft.training.stage import StageInputs, run_stage
from sft.training.staging import Fetch
from sft.training.wishes import Wishes
from sft.training.workload import Workload
from sft.world import World

_NEVER = timedelta(days=14)
"""As a timeout in milliseconds it still fits into 32 bits, as which torch passes some."""

BuildEngine = Callable[[SftConfig, OptimizerConfig, str, World], Engine]


def run_curriculum(
    config: SftConfig,
    world: World,
    workload: Workload,
    attempt: Attempt,
    wishes: Wishes,
    build: BuildEngine,
    fetch: Fetch = fetch_packs,
) -> bool:
    """Run every stage that is not finished; False if stopped on request, with a checkpoint saved.

    Args:
        config: the run.
        world: this rank's place.
        workload: where the prepared data is.
        attempt: this start of the job.
        wishes: asked for between steps.
        build: makes the engine of a stage from the model at a path.
        fetch: brings packs to this node's disk, where `data.staging` asks for it.
    """
    run = RunFolder(config.run.dir)
    raise_on_all_ranks(_unseen_folders(config, world, workload))
    store = TokenStore.open(workload.store)
    tokenizer = load_tokenizer(config.model)
    heldout = None
    if workload.heldout is not None:
        heldout = HeldoutSet(store, PackPlan.open(workload.heldout), config.data.holdout.tasks)
    model_path = config.model.path
    if not run.has_finished(stage.name for stage in config.stages):
        config = settle_layout(config, world, attempt.events)
    for index, stage in enumerate(config.stages):
        folder = run.stage(index, stage.name)
        if not folder.complete.is_file():
            plan = PackPlan.open(workload.plans[index])
            if world.is_first:
                run.sample_answers.unlink(missing_ok=True)  # of a model that is not the last any more
            _fetch_weights(model_path, attempt)
            attempt.position.enter("load", stage=stage.name, also_counts=_num_collectives)
            reset_peaks(world)
            engine = build(config, stage.optimizer, model_path, world)
            _leave_waiting_to_the_watch()
            inputs = StageInputs(config, index, store, plan, heldout, tokenizer, attempt, wishes, fetch)
            finished = run_stage(inputs, engine)
            # The next stage's engine needs the memory of this one.
            engine.close()
            del engine
            if not finished:
                return False
            if dist.is_initialized():
                dist.barrier()
        if not config.checkpoint.keep_stage_ends:
            # Also of a stage that was finished before: a killed start may have left them.
            _delete_checkpoints(config, folder, attempt)
        model_path = str(folder.model)
    return True


def _delete_checkpoints(config: SftConfig, folder: StageFolder, attempt: Attempt) -> None:
    """The first rank deletes a finished stage's checkpoints; the others wait as long as that goes on."""
    attempt.position.enter("delete checkpoints")
    place = stage_place(config.checkpoint, folder) if attempt.world.is_first else None

    def delete() -> None:
        if place is not None:
            delete_stage_checkpoints(place, partial(attempt.events.add, "checkpoint"))

    attempt.group.run(delete, place.progress if place is not None else Progress())


def _fetch_weights(model_path: str, attempt: Attempt) -> None:
    """Have a model of the Hub on every node: one rank of each fetches it, the others wait as long as that goes on."""
    if Path(model_path).expanduser().is_dir():
        return
    attempt.position.enter("download")
    fetched = Progress()

    def fetch() -> None:
        if attempt.world.local_rank == 0:
            weight_files(model_path, finder(model_path, download=True, tell=fetched.tell))

    attempt.group.run(fetch, fetched)


def _leave_waiting_to_the_watch() -> None:
    """No collective gives up by itself, as it would after its process was suspended: that is for the watch to judge."""
    if dist.is_initialized():
        # Also of the groups that the engine has made.
        for group in dist.distributed_c10d._world.pg_map:
            dist.distributed_c10d._set_pg_timeout(_NEVER, group)


def _num_collectives() -> int:
    """How many the ranks have begun: each module that is loaded into shards takes some."""
    if not dist.is_initialized():
        return 0
    group: Any = dist.distributed_c10d._get_default_group()  # torch's stubs leave the method out
    return int(group._get_sequence_number_for_group())


def _unseen_folders(config: SftConfig, world: World, workload: Workload) -> str | None:
    """What this node does not see of what it needs, in words."""
    unseen = [str(path) for path in (workload.store, *workload.plans) if not is_published(path)]
    # A local model is absolute here (see `absolute_paths`); anything else is of the Hub.
    unseen += [path for path in (config.model.path,) if Path(path).is_absolute() and not Path(path).is_dir()]
    if not unseen:
        return None
    return (
        f"node {world.node} does not see {', '.join(unseen)}. "
        "Needed: run.dir, data.cache_dir and a local model in a file system that all nodes share."
    )
