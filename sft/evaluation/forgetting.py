"""What a model does worse than the one that the run began with (`evaluate.retain`).

A fall is a difference where the metric is a share, else relative to the first value, as the tables show changes.
"""

import math
from collections.abc import Collection, Mapping
from typing import NamedTuple

import numpy as np

from sft.config_evaluation import RetainConfig
from sft.data.planning.pack_plan import PackPlan
from sft.data.token_store import TokenStore
from sft.evaluation.scores import Evaluation, change_of, value_over
from sft.evaluation.tables import change_text, value_text


class Fall(NamedTuple):
    """A score that fell by more than it may."""

    name: str
    """`task copy` or `source words`."""
    first: float
    last: float


def retained_tasks(retain: RetainConfig, store: TokenStore, heldout: PackPlan) -> dict[str, tuple[str, ...]]:
    """What may not be forgotten, in words → its tasks: a source has those of its held-out examples."""
    ids = np.array(heldout.example_ids)
    tasks, sources = store.task_ids[ids], store.source_ids[ids]
    found: dict[str, tuple[str, ...]] = {f"task {task}": (task,) for task in retain.tasks}
    for name in retain.sources:
        own = sources == [*store.manifest["sources"]].index(name)
        found[f"source {name}"] = tuple(store.tasks[task] for task in np.unique(tasks[own]))
    return found


def find_falls(
    base: Evaluation, now: Evaluation, retain: RetainConfig, retained: Mapping[str, Collection[str]]
) -> list[Fall]:
    """What fell by more than it may; a score that was not measured in both did not."""
    metric = now.metrics.get(retain.score)
    if metric is None:
        return []
    falls = []
    for name, tasks in retained.items():
        first, last = (value_over(each, retain.score, tasks) for each in (base, now))
        change = change_of(metric, first, last)
        fall = -change if metric.better == "higher" else change
        if not math.isnan(fall) and fall > retain.max_drop:
            falls.append(Fall(name, first, last))
    return falls


def falls_in_words(falls: Collection[Fall], now: Evaluation, retain: RetainConfig) -> str:
    """What fell, and by how much."""
    metric = now.metrics[retain.score]
    parts = [
        f"{fall.name}: {metric.title} {value_text(metric, fall.first, 3)} → {value_text(metric, fall.last, 3)} "
        f"({change_text(metric, change_of(metric, fall.first, fall.last))})"
        for fall in falls
    ]
    return f"worse than the base model by more than evaluate.retain.max_drop ({retain.max_drop:g}): {'; '.join(parts)}"
