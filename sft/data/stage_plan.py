"""Plans a stage before it is trained: mixture, order and packs, a pure function of (store, config, seed).

The plan lies in the run folder. The same inputs find it again; others are refused with the difference, because
checkpoints of the stage count steps of its plan.
"""

import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from sft.atomic_files import is_published, read_manifest
from sft.config import MixtureConfig, SftConfig
from sft.data.budget import Drawing, Packing, fill_budget
from sft.data.holdout import check_tasks, held_out_examples
from sft.data.mixture import MixtureRow, Rates, TaskSupply, add_replay, capped_sizes, mixing_rates
from sft.data.pack_plan import PackPlan, publish_plan
from sft.data.packing import pack_order
from sft.data.token_store import TokenStore
from sft.errors import UserError
from sft.run_folder import RunFolder
from sft.schema import IntArray
from sft.seeds import derive_seed

Supplies = dict[str, TaskSupply]


def plan_stages(config: SftConfig, store: TokenStore) -> list[PackPlan]:
    """The published plan of every stage, made where it is not there yet.

    Raises:
        UserError: a task of the config is not in the data, a budget cannot be met, or the run folder holds a plan
            of other inputs.
    """
    run = RunFolder(config.run.dir)
    paths = [run.stage(i, stage.name).packs for i, stage in enumerate(config.stages)]
    inputs = [_plan_inputs(config, i, store) for i in range(len(config.stages))]
    missing = [i for i, path in enumerate(paths) if not _is_planned(path, inputs[i], run)]
    units = {config.stages[i].mixture.unit for i in missing}
    supplies = {unit: task_supplies(store, config, unit) for unit in units}
    # Every stage's tasks are checked before the first plan is written.
    rates = {i: _stage_rates(config, i, supplies[config.stages[i].mixture.unit]) for i in missing}
    for i in missing:
        _publish_stage_plan(config, i, store, supplies[config.stages[i].mixture.unit], rates[i], paths[i], inputs[i])
    return [PackPlan.open(path) for path in paths]


def plan_heldout(config: SftConfig, store: TokenStore) -> PackPlan | None:
    """The packs of held-out examples that are measured, at most so many of each task; None where there are none."""
    run = RunFolder(config.run.dir)
    path = run.evaluations / "packs"
    length = min(config.pack_len_tokens(i) for i in range(len(config.stages)))
    inputs = {
        "store": store.path.name,
        "holdout": config.data.holdout.model_dump(mode="json"),
        "max_examples_per_task": config.evaluate.max_examples_per_task,
        "pack_len_tokens": length,
        "seed": config.run.seed,
    }
    if _is_planned(path, inputs, run):
        return PackPlan.open(path)
    held_out = np.flatnonzero(held_out_examples(store, config.data.holdout))
    chosen = []
    for task_id, task in enumerate(store.tasks):
        ids = held_out[store.task_ids[held_out] == task_id]
        rng = np.random.default_rng(derive_seed(config.run.seed, "heldout", task))
        chosen.append(rng.permutation(ids)[: config.evaluate.max_examples_per_task])
    order = np.concatenate(chosen)
    if not len(order):
        return None
    packed = pack_order(store.lengths[order], length, derive_seed(config.run.seed, "heldout", "packing"))
    publish_plan(path, order, packed, store, {"kind": "heldout_plan", "inputs": inputs})
    return PackPlan.open(path)


def task_supplies(store: TokenStore, config: SftConfig, unit: str) -> Supplies:
    """What there is to train on of every task that is not held out as a whole."""
    trainable = np.flatnonzero(~held_out_examples(store, config.data.holdout))
    lengths = store.lengths
    supplies = {}
    for task_id, task in enumerate(store.tasks):
        ids = trainable[store.task_ids[trainable] == task_id]
        if len(ids):
            supervised = int(store.num_supervised[ids].sum())
            units = supervised if unit == "supervised_tokens" else len(ids)
            supplies[task] = TaskSupply(ids, units, int(lengths[ids].sum()), supervised)
    if not supplies:
        raise UserError("data.holdout: every example of the data is held out. Hold out less.")
    return supplies


def _plan_inputs(config: SftConfig, index: int, store: TokenStore) -> dict[str, Any]:
    stage = config.stages[index]
    replayed = [s for s in config.stages[:index] if s.name in stage.mixture.replay]
    return {
        "store": store.path.name,
        "seed": config.run.seed,
        "holdout": config.data.holdout.model_dump(mode="json"),
        "mixture": stage.mixture.model_dump(mode="json"),
        "replayed": {s.name: s.mixture.model_dump(mode="json") for s in replayed},
        "budget": stage.budget.model_dump(mode="json"),
        "pack_len_tokens": config.pack_len_tokens(index),
        "packs_per_step": config.train.packs_per_step,
    }


def _is_planned(path: Path, inputs: Mapping[str, Any], run: RunFolder) -> bool:
    """Whether the plan at `path` is of these inputs. One of others makes room if nothing was trained by it.

    Raises:
        UserError: it is of other inputs, and steps of it were trained.
    """
    if not is_published(path):
        return False
    planned = read_manifest(path)["inputs"]
    if planned == inputs:
        return True
    if not run.has_trained():
        shutil.rmtree(path.parent)  # the plan, and evaluations made with it
        return False
    changed = [
        f"  {key}: planned {planned.get(key)!r}, now {inputs.get(key)!r}"
        for key in sorted({*planned, *inputs})
        if planned.get(key) != inputs.get(key)
    ]
    raise UserError(
        f"{path} was planned with other data or settings, and its checkpoints count the steps of that plan:\n"
        + "\n".join(changed)
        + "\nSet them back to resume this run, or give run.dir a new folder to start another."
    )


def _publish_stage_plan(
    config: SftConfig,
    index: int,
    store: TokenStore,
    supplies: Supplies,
    rates: Rates,
    path: Path,
    inputs: dict[str, Any],
) -> None:
    stage = config.stages[index]
    seed = derive_seed(config.run.seed, "stage", stage.name)
    own_units = sum(capped_sizes(stage.mixture, _stage_sizes(stage.mixture, supplies, index)).values())
    packing = Packing(config.pack_len_tokens(index), config.train.packs_per_step, derive_seed(seed, "packing"))
    drawing = Drawing(stage, supplies, rates, own_units, derive_seed(seed, "mixture"))
    order, packed = fill_budget(drawing, packing, store)
    rows = _mixture_rows(order, supplies, rates, stage.mixture.unit, store)
    num_packs, num_tokens = len(packed.starts) - 1, int(store.lengths[order].sum())
    manifest = {
        "kind": "stage_plan",
        "inputs": inputs,
        "unit": stage.mixture.unit,
        "num_packs": num_packs,
        "num_steps": math.ceil(num_packs / config.train.packs_per_step),
        "num_tokens": num_tokens,
        "num_supervised_tokens": int(store.num_supervised[order].sum(dtype=np.int64)),
        "fill": num_tokens / (num_packs * config.pack_len_tokens(index)),
        "mixture": [asdict(row) for row in rows],
    }
    publish_plan(path, order, packed, store, manifest)


def _stage_rates(config: SftConfig, index: int, supplies: Supplies) -> Rates:
    stage = config.stages[index]
    earlier = []
    for i, other in enumerate(config.stages[:index]):
        share = stage.mixture.replay.get(other.name)
        if share:
            earlier.append((share, mixing_rates(other.mixture, _stage_sizes(other.mixture, supplies, i))))
    own = mixing_rates(stage.mixture, _stage_sizes(stage.mixture, supplies, index))
    return add_replay(own, earlier)


def _stage_sizes(mixture: MixtureConfig, supplies: Supplies, index: int) -> dict[str, int]:
    """Units of each of the stage's own tasks."""
    known = sorted(supplies)
    if mixture.rates == "weights":
        names = check_tasks(mixture.weights, known, f"stages.{index}.mixture.weights")
    else:
        names = check_tasks(mixture.tasks or known, known, f"stages.{index}.mixture.tasks")
    return {name: supplies[name].units for name in names}


def _mixture_rows(
    order: IntArray, supplies: Supplies, rates: Rates, unit: str, store: TokenStore
) -> Sequence[MixtureRow]:
    drawn_tasks = store.task_ids[order]
    drawn_supervised = store.num_supervised[order].astype(np.int64)
    before_units = sum(s.units for s in supplies.values())
    after_units = int(drawn_supervised.sum()) if unit == "supervised_tokens" else len(order)
    rows = []
    for task, supply in supplies.items():
        drawn = drawn_tasks == store.tasks.index(task)
        num_examples, num_supervised = int(drawn.sum()), int(drawn_supervised[drawn].sum())
        rows.append(
            MixtureRow(
                task,
                len(supply.example_ids),
                supply.num_supervised_tokens,
                supply.units / before_units,
                num_examples,
                num_supervised,
                rates.get(task, 0.0),
                (num_supervised if unit == "supervised_tokens" else num_examples) / max(after_units, 1),
                num_examples / len(supply.example_ids),
                len(np.unique(order[drawn])) / len(supply.example_ids),
            )
        )
    return rows
