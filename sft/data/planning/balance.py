"""The audit of a stage's mixture: each task's intended share, its actual share, and how often its examples repeat.

It counts the examples in the packs, not the intended shares. `balance.json` beside the packs is this audit for people
and their scripts; the plan's manifest holds all of it.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sft.atomic_files import write_json
from sft.data.planning.mixture import MixtureRow, Rates
from sft.data.planning.stage_rates import Supplies
from sft.data.token_store import TokenStore
from sft.schema import IntArray

_OF_THE_STAGE = (
    *("unit", "num_units", "num_units_wanted", "ends_early"),
    *("num_tokens", "num_supervised_tokens", "num_packs", "num_steps", "fill"),
)


def mixture_rows(
    order: IntArray, supplies: Supplies, rates: Rates, unit: str, store: TokenStore
) -> tuple[MixtureRow, ...]:
    """What each task of `supplies`, counted in `unit`, contributes to the examples of `order`.

    Args:
        order: (num_draws,), the example ids that the stage trains on.
        supplies: the supply of each task.
        rates: the intended share of each task.
        unit: `supervised_tokens` or `examples`.
        store: the store that holds the examples.
    """
    num_tasks, num_supervised = len(store.tasks), store.num_supervised[:]
    drawn = np.bincount(order, minlength=len(store))
    trained = np.flatnonzero(drawn)
    once = _count_by_task(store, trained, np.ones(len(trained)), num_tasks)
    num_examples = _count_by_task(store, trained, drawn[trained], num_tasks)
    tokens_once = _count_by_task(store, trained, num_supervised[trained], num_tasks)
    tokens = _count_by_task(store, trained, drawn[trained] * num_supervised[trained].astype(np.int64), num_tasks)
    units = tokens if unit == "supervised_tokens" else num_examples
    units_before = sum(supply.units for supply in supplies.values())
    rows = []
    for task, supply in supplies.items():
        i, there = store.tasks.index(task), len(supply.example_ids)
        rows.append(
            MixtureRow(
                task=task,
                num_examples_before=there,
                num_supervised_tokens_before=supply.num_supervised_tokens,
                share_before=supply.units / units_before,
                num_examples=int(num_examples[i]),
                num_supervised_tokens=int(tokens[i]),
                share_target=rates.get(task, 0.0),
                share=int(units[i]) / max(int(units.sum()), 1),
                epochs=int(num_examples[i]) / there,
                coverage=int(once[i]) / there,
                num_tokens_repeated=int(tokens[i] - tokens_once[i]),
            )
        )
    return tuple(rows)


def write_balance(path: Path, stage_name: str, manifest: Mapping[str, Any]) -> None:
    """Write the audit of the stage with this plan's manifest, the largest task first."""
    tasks = sorted(manifest["mixture"], key=lambda row: (-row["share"], row["task"]))
    write_json(path, {"stage": stage_name, **{key: manifest[key] for key in _OF_THE_STAGE}, "tasks": tasks})


def _count_by_task(store: TokenStore, examples: IntArray, weights: Any, num_tasks: int) -> IntArray:
    # Sums in float64 are exact up to 2**53.
    return np.bincount(store.task_ids[examples], weights=weights, minlength=num_tasks).astype(np.int64)
