"""Plans a stage before it is trained: mixture, order and packs, a pure function of (store, config, seed).

The plan lies in the run folder. The same inputs find it again; others are refused with the difference, because
checkpoints of the stage count steps of its plan.
"""

import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from sft.atomic_files import write_json
from sft.config import SftConfig
from sft.data.planning.balance import mixture_rows, write_balance
from sft.data.planning.budget import Drawing, Packing, fill_budget
from sft.data.planning.holdout import check_tasks, held_out_examples
from sft.data.planning.mixture import Rates
from sft.data.planning.pack_plan import PackPlan, publish_plan
from sft.data.planning.packing import pack_order
from sft.data.planning.plan_inputs import heldout_inputs, is_planned, stage_inputs
from sft.data.planning.stage_rates import Available, own_units, split_by_task, stage_rates
from sft.data.planning.trainable import find_trainable
from sft.data.token_store import TokenStore
from sft.run_folder import RunFolder
from sft.seeds import derive_seed


def plan_stages(config: SftConfig, store: TokenStore) -> list[PackPlan]:
    """The published plan of every stage, made where it is not there yet, with the audit of its balance.

    Raises:
        UserError: a task of the config is not in the data, a share or a budget cannot be met, or the run folder holds
            a plan of other inputs.
    """
    run = RunFolder(config.run.dir)
    folders = [run.stage(i, stage.name) for i, stage in enumerate(config.stages)]
    inputs = [stage_inputs(config, i, store) for i in range(len(config.stages))]
    missing = [i for i, folder in enumerate(folders) if not is_planned(folder.packs, inputs[i], run)]
    if missing:
        tag = config.data.task_tag
        check_tasks(tag.texts if tag else (), store.tasks, "data.task_tag.texts")
        trainable = find_trainable(store, config.data.holdout)
        available = Available.of(store, trainable.examples)
        # Every stage's tasks are checked before the first file is written.
        rates = {i: stage_rates(config, i, available) for i in missing}
        run.overlap.unlink(missing_ok=True)
        if trainable.overlap is not None:
            write_json(run.overlap, trainable.overlap)
        for i in missing:
            # What is left of a plan that was taken away would pass for the audit of this one.
            folders[i].balance.unlink(missing_ok=True)
            folders[i].balance_plot.unlink(missing_ok=True)
            _publish_stage_plan(config, i, store, available, rates[i], folders[i].packs, inputs[i])
    plans = [PackPlan.open(folder.packs) for folder in folders]
    for stage, folder, plan in zip(config.stages, folders, plans, strict=True):
        if not folder.balance.is_file():
            write_balance(folder.balance, stage.name, plan.manifest)
    return plans


def plan_heldout(config: SftConfig, store: TokenStore) -> PackPlan | None:
    """The packs of held-out examples that are measured, at most so many of each task; None where there are none."""
    run = RunFolder(config.run.dir)
    path = run.evaluations / "packs"
    inputs = heldout_inputs(config, store)
    # How many are measured is no part of what is trained.
    if is_planned(path, inputs, run, free=("max_examples_per_task",)):
        return PackPlan.open(path)
    held_out = np.flatnonzero(held_out_examples(store, config.data.holdout))
    chosen = []
    for task, ids in split_by_task(store, held_out):
        rng = np.random.default_rng(derive_seed(config.run.seed, "heldout", task))
        chosen.append(rng.permutation(ids)[: config.evaluate.max_examples_per_task])
    order = np.concatenate(chosen)
    if not len(order):
        return None
    # No step is trained on them, so all packs are filled at once.
    num_packs, seed = len(order), derive_seed(config.run.seed, "heldout", "packing")
    tasks, length = store.task_ids[order], inputs["pack_len_tokens"]
    packed = pack_order(store.lengths[order], order, tasks, length, num_packs, seed)
    num_tasks = sum(len(ids) > 0 for ids in chosen)
    counts = {"num_held_out": len(held_out), "num_tasks": num_tasks}
    publish_plan(path, order, packed, store, {"kind": "heldout_plan", "inputs": inputs, **counts})
    return PackPlan.open(path)


def _publish_stage_plan(
    config: SftConfig,
    index: int,
    store: TokenStore,
    available: Available,
    rates: Rates,
    path: Path,
    inputs: dict[str, Any],
) -> None:
    stage = config.stages[index]
    unit = stage.mixture.unit
    supplies = available.supplies[unit]
    seed = derive_seed(config.run.seed, "stage", stage.name)
    packing = Packing(config.pack_len_tokens(index), config.train.packs_per_step, derive_seed(seed, "packing"))
    drawing = Drawing(stage, supplies, rates, own_units(config, index, available), derive_seed(seed, "mixture"))
    order, packed = fill_budget(drawing, packing, store)
    num_packs, num_tokens = len(packed.starts) - 1, int(store.lengths[order].sum())
    num_supervised = int(store.num_supervised[order].sum(dtype=np.int64))
    num_units = num_supervised if unit == "supervised_tokens" else len(order)
    wanted = drawing.num_units_wanted
    manifest = {
        "kind": "stage_plan",
        "inputs": inputs,
        "unit": unit,
        "num_units": num_units,
        "num_units_wanted": num_units if wanted is None else round(wanted),
        "ends_early": drawing.ends_early,
        "num_packs": num_packs,
        "num_steps": math.ceil(num_packs / config.train.packs_per_step),
        "num_tokens": num_tokens,
        "num_supervised_tokens": num_supervised,
        "fill": num_tokens / (num_packs * config.pack_len_tokens(index)),
        "mixture": [asdict(row) for row in mixture_rows(order, supplies, rates, unit, store)],
    }
    publish_plan(path, order, packed, store, manifest)
