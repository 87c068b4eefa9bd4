"""What the losses of many examples say, by task: quantiles, and how many examples their prompt does not help with."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from sft.data.token_store import TokenStore
from sft.difficulty.example_losses import Floats
from sft.difficulty.loss_table import LossTable
from sft.schema import BoolArray

ALL = "all"


class ModelLosses(NamedTuple):
    """The losses of one model."""

    title: str
    table: LossTable


class TaskDifficulty(NamedTuple):
    """A task as a model sees it; NaN where nothing is known."""

    task: str
    num_measured: int
    loss: float
    """The median over its examples."""
    ifd: tuple[float, float, float]
    """The 10th, 50th and 90th percentile."""
    num_unhelped: int
    """Examples with an IFD of 1 or more."""
    gains: tuple[float, ...]
    """For each further model, the median over examples of how much lower their loss is than for the first."""


def difficulty_by_task(store: TokenStore, models: Sequence[ModelLosses]) -> list[TaskDifficulty]:
    """A row for each task with measured examples, in the store's order; behind them, one for all if there are several.

    Args:
        store: the examples.
        models: of which the first one is described, and the others are compared with it.
    """
    first, *others = [model.table for model in models]
    loss, ifd = first.column("loss"), first.column("ifd")
    gains = [loss - other.column("loss") for other in others]
    rows = []
    for name, of_task in _tasks(store, first.is_measured):
        quantiles = tuple(_quantile(ifd[of_task], share) for share in (0.1, 0.5, 0.9))
        unhelped = int((ifd[of_task] >= 1).sum())
        middle = tuple(_quantile(gain[of_task], 0.5) for gain in gains)
        about = _quantile(loss[of_task], 0.5), (quantiles[0], quantiles[1], quantiles[2])
        rows.append(TaskDifficulty(name, int(of_task.sum()), *about, unhelped, middle))
    return rows


def _tasks(store: TokenStore, is_measured: BoolArray) -> Iterator[tuple[str, BoolArray]]:
    num = 0
    for task_id, name in enumerate(store.tasks):
        of_task = is_measured & (store.task_ids == task_id)
        if of_task.any():
            num += 1
            yield name, of_task
    if num > 1:
        yield ALL, is_measured


def _quantile(values: Floats, share: float) -> float:
    known = values[np.isfinite(values)]
    return float(np.quantile(known, share)) if len(known) else float("nan")
