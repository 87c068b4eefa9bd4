"""What the losses of many examples say, by task: quantiles, and how many examples their prompt does not help with.

It is written beside the losses, for the report.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from sft.atomic_files import read_json, write_json
from sft.data.token_store import TokenStore
from sft.difficulty.loss_table import Floats, ModelLosses
from sft.json_lines import from_json
from sft.schema import BoolArray

ALL = "all"
_FILE = "summary.json"


@dataclass(frozen=True, slots=True)
class TaskDifficulty:
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


@dataclass(frozen=True, slots=True)
class Difficulty:
    """What was found of a token store."""

    models: tuple[str, ...]
    """The titles of the models; the first one is described, and the others are compared with it."""
    tasks: tuple[TaskDifficulty, ...]
    """The store's, in its order, as far as any example is measured; behind several, one for all."""


def difficulty_of(store: TokenStore, models: Sequence[ModelLosses]) -> Difficulty:
    """What these models' losses say of the examples of a store."""
    return Difficulty(tuple(model.title for model in models), tuple(_by_task(store, models)))


def write_difficulty(difficulty: Difficulty, folder: Path) -> None:
    """Write it beside the losses, in place of an earlier one."""
    write_json(folder / _FILE, asdict(difficulty))


def read_difficulty(folder: Path) -> Difficulty | None:
    """What `write_difficulty` wrote; None if it wrote nothing.

    Raises:
        UserError: it is damaged.
    """
    try:
        content = read_json(folder / _FILE)
    except FileNotFoundError:
        return None
    return Difficulty(tuple(content["models"]), tuple(from_json(TaskDifficulty, task) for task in content["tasks"]))


def _by_task(store: TokenStore, models: Sequence[ModelLosses]) -> Iterator[TaskDifficulty]:
    first, *others = [model.table for model in models]
    loss, ifd = first.column("loss"), first.column("ifd")
    gains = [loss - other.column("loss") for other in others]
    for name, of_task in _tasks(store, first.is_measured):
        quantiles = tuple(_quantile(ifd[of_task], share) for share in (0.1, 0.5, 0.9))
        unhelped = int((ifd[of_task] >= 1).sum())
        middle = tuple(_quantile(gain[of_task], 0.5) for gain in gains)
        about = _quantile(loss[of_task], 0.5), (quantiles[0], quantiles[1], quantiles[2])
        yield TaskDifficulty(name, int(of_task.sum()), *about, unhelped, middle)


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
