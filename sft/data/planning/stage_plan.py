"""Plans a stage before it is trained: mixture, order and packs, a pure function of (store, config, seed).

The plan lies in the run folder. The same inputs find it again. Other inputs make a new plan, unless steps were trained
with the old one: then a larger budget extends it, and any other difference is refused with a message that shows it,
because checkpoints count the plan's steps.
"""

import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sft.atomic_files import is_published, read_manifest, write_json
from sft.config import SftConfig
from sft.data.planning.balance import mixture_rows, write_balance
from sft.data.planning.budget import NOTHING, Drawing, Packed, Packing, fill_budget
from sft.data.planning.extension import Kept, described_parts, is_wanted_still, kept_of
from sft.data.planning.holdout import check_tasks, held_out_examples
from sft.data.planning.mixture import Rates
from sft.data.planning.pack_plan import PackPlan, publish_plan
from sft.data.planning.packing import pack_order
from sft.data.planning.plan_inputs import data_inputs, heldout_inputs, planned_inputs, refuse, stage_inputs
from sft.data.planning.stage_rates import Available, own_units, split_by_task, stage_rates
from sft.data.planning.trainable import find_trainable
from sft.data.token_store import TokenStore
from sft.dealing import CostRates
from sft.errors import UserError
from sft.run_folder import RunFolder, StageFolder
from sft.schema import IntArray
from sft.seeds import derive_seed


def plan_stages(
    config: SftConfig,
    store: TokenStore,
    recorded: Sequence[Mapping[str, Any]] = (),
    before_extending: Callable[[StageFolder], None] = lambda folder: None,
    cost_rates: Callable[[], CostRates | None] = lambda: None,
) -> list[PackPlan]:
    """The published plan of every stage, made if it is missing, with the audit of its balance.

    Args:
        config: the run.
        store: its data.
        recorded: the stages in the record of a run that has trained.
        before_extending: called with the folder of a stage that has trained, before it is extended.
        cost_rates: called if a plan is made: what a pack costs the model; None if that is not known.

    Raises:
        UserError: a task of the config is not in the data, a share or a budget cannot be met, or the run folder holds
            a plan of other inputs with which steps were trained.
    """
    run = RunFolder(config.run.dir)
    folders = [run.stage(i, stage.name) for i, stage in enumerate(config.stages)]
    _remove_unused(run, folders)
    wanted = [_Wanted(i, stage_inputs(config, i, store), folder) for i, folder in enumerate(folders)]
    missing = [one for one in wanted if not _is_there(config, one, may_grow=one.number < len(recorded))]
    if missing:
        tag = config.data.task_tag
        check_tasks(tag.texts if tag else (), store.tasks, "data.task_tag.texts")
        trainable = find_trainable(store, config.data.holdout)
        available = Available.of(store, trainable.examples)
        # Every stage's tasks are checked before the first file is written.
        rates = {one.number: stage_rates(config, one.number, available) for one in missing}
        costs = cost_rates()
        run.overlap.unlink(missing_ok=True)
        if trainable.overlap is not None:
            write_json(run.overlap, trainable.overlap)
        for one in missing:
            kept = None
            # A plan that is not published is made again: it is a function of its inputs.
            if one.folder.has_trained() and is_published(one.folder.packs):
                stage, plan = config.stages[one.number], PackPlan.open(one.folder.packs)
                kept = kept_of(one.folder, stage, plan, recorded[one.number])
            order, packed, manifest = _plan_stage(config, one, store, available, rates[one.number], kept)
            if kept is not None:
                before_extending(one.folder)
            # The audit of a removed plan must not pass for the audit of this one.
            one.folder.balance.unlink(missing_ok=True)
            one.folder.balance_plot.unlink(missing_ok=True)
            place = one.folder.packs if kept is None else one.folder.next_plan
            # The steps that are trained keep their deal, and so does the rest of their stage.
            publish_plan(place, order, packed, store, manifest, costs if kept is None else kept.plan.cost_rates)
    plans = [PackPlan.open(folder.packs) for folder in folders]
    for stage, folder, plan in zip(config.stages, folders, plans, strict=True):
        if not folder.balance.is_file():
            write_balance(folder.balance, stage.name, plan.manifest)
    return plans


class _Wanted(NamedTuple):
    """A stage to plan, with its position in the curriculum."""

    number: int
    inputs: dict[str, Any]
    folder: StageFolder


def _remove_unused(run: RunFolder, folders: Sequence[StageFolder]) -> None:
    """Remove the plans of stages that the config no longer has and that never began."""
    used = {folder.path for folder in folders}
    for folder in run.stage_folders():
        ours = {*folder.plans(), folder.balance, folder.balance_plot}
        if folder.path not in used and set(folder.path.iterdir()) <= ours:
            shutil.rmtree(folder.path)


def _is_there(config: SftConfig, one: _Wanted, may_grow: bool) -> bool:
    """Whether a stage has its plan. A plan of other inputs is removed if nothing was trained with it.

    Raises:
        UserError: something was trained, and the stage cannot be extended as the config asks.
    """
    folder, stage = one.folder, config.stages[one.number]
    if not is_published(folder.packs):
        if len(folder.plans()) > 1:
            raise UserError(
                f"{folder.packs}: its manifest.json is missing, and only this plan says how the stage was extended. "
                "Bring it back from a backup."
            )
        return False
    plan = PackPlan.open(folder.packs)
    planned = planned_inputs(config, plan.manifest, one.number)
    if planned == one.inputs and is_wanted_still(plan, stage):
        return True
    if not folder.has_trained():
        shutil.rmtree(folder.path)  # the plan, and everything made with it
    elif not may_grow or planned | {"budget": one.inputs["budget"]} != one.inputs:
        refuse(folder.packs, planned, one.inputs)
    return False


def plan_heldout(config: SftConfig, store: TokenStore) -> PackPlan | None:
    """The packs of held-out examples to measure, at most so many of each task; None where there are none."""
    run = RunFolder(config.run.dir)
    path = run.heldout_packs
    inputs = heldout_inputs(config, store)
    if is_published(path):
        planned = planned_inputs(config, read_manifest(path))
        if planned == inputs:
            return PackPlan.open(path)
        has_trained = run.has_trained()
        # How many examples are measured, and how they are packed, does not affect what is trained.
        if has_trained and any(planned[key] != value for key, value in data_inputs(config, store).items()):
            refuse(path, planned, inputs)
        # The measurements from before the first step go with it.
        shutil.rmtree(path if has_trained else run.evaluations)
    publish_heldout(path, config, store, inputs)
    return PackPlan.open(path) if is_published(path) else None


def publish_heldout(path: Path, config: SftConfig, store: TokenStore, inputs: Mapping[str, Any]) -> None:
    """Publish the packs of held-out examples to measure at `path`; nothing, where there are none."""
    held_out = np.flatnonzero(held_out_examples(store, config.data.holdout))
    chosen = []
    for task, ids in split_by_task(store, held_out):
        rng = np.random.default_rng(derive_seed(config.run.seed, "heldout", task))
        chosen.append(rng.permutation(ids)[: config.evaluate.max_examples_per_task])
    order = np.concatenate(chosen)
    if not len(order):
        return
    # No step is trained on them, so all packs are filled at once.
    num_packs, seed = len(order), derive_seed(config.run.seed, "heldout", "packing")
    tasks, length = store.task_ids[order], inputs["pack_len_tokens"]
    packed = pack_order(store.lengths[order], order, tasks, length, num_packs, seed)
    num_tasks = sum(len(ids) > 0 for ids in chosen)
    counts = {"num_held_out": len(held_out), "num_tasks": num_tasks}
    publish_plan(path, order, packed, store, {"kind": "heldout_plan", "inputs": inputs, **counts})


def _plan_stage(
    config: SftConfig, one: _Wanted, store: TokenStore, available: Available, rates: Rates, kept: Kept | None
) -> tuple[IntArray, Packed, dict[str, Any]]:
    """The examples of a stage, their packs, and the plan's manifest; an extended stage begins with what is kept."""
    index, inputs = one.number, one.inputs
    stage = config.stages[index]
    unit = stage.mixture.unit
    supplies = available.supplies[unit]
    seed = derive_seed(config.run.seed, "stage", stage.name)
    of_part = () if kept is None else (len(kept.parts),)
    shape = config.pack_len_tokens(index), config.train.packs_per_step
    packing = Packing(*shape, derive_seed(seed, "packing", *of_part))
    drawn = NOTHING if kept is None else kept.drawn
    drawing = Drawing(stage, supplies, rates, own_units(config, index, available), derive_seed(seed, "mixture"), drawn)
    order, packed = fill_budget(drawing, packing, store)
    num_steps = drawn.num_steps + math.ceil((len(packed.starts) - 1) / config.train.packs_per_step)
    extended: dict[str, Any] = {}
    if kept is not None:
        extended["parts"] = described_parts(kept, stage, len(packed.starts) - 1)
        # What the stage's checkpoints record of their plan stays unchanged, except the budget.
        inputs = {**kept.plan.manifest["inputs"], "budget": inputs["budget"]}
        order, packed = kept.with_more(order, packed)
    num_packs, num_tokens = len(packed.starts) - 1, int(store.lengths[order].sum())
    num_supervised = int(store.num_supervised[order].sum(dtype=np.int64))
    num_units = num_supervised if unit == "supervised_tokens" else len(order)
    wanted = drawing.num_units_wanted
    manifest = {
        "kind": "stage_plan",
        "inputs": inputs,
        **extended,
        "unit": unit,
        "num_units": num_units,
        "num_units_wanted": num_units if wanted is None else round(wanted),
        "ends_early": drawing.ends_early,
        "num_packs": num_packs,
        "num_steps": num_steps,
        "num_tokens": num_tokens,
        "num_supervised_tokens": num_supervised,
        "fill": num_tokens / (num_packs * config.pack_len_tokens(index)),
        "mixture": [asdict(row) for row in mixture_rows(order, supplies, rates, unit, store)],
    }
    return order, packed, manifest
