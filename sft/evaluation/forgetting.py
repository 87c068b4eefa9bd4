"""What a model does worse than the one that the run began with (`evaluate.retain`).

A fall is a difference where the metric is a share, else relative to the first value, as the tables show changes.
"""

import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sft.config_evaluation import RetainConfig
from sft.data.planning.pack_plan import PackPlan
from sft.data.token_store import TokenStore
from sft.evaluation.judged_answers import scores_in
from sft.evaluation.scores import Evaluation, change_of, value_over
from sft.evaluation.tables import change_text, value_text
from sft.scoring.statistics import SHARE, Difference, Scores, paired_difference


class Fall(NamedTuple):
    """A score that fell by more than it may."""

    name: str
    """`task copy` or `source words`."""
    first: float
    last: float
    difference: Difference | None = None
    """On the questions that both models answered, if it is a score of answers."""


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
    base: Evaluation,
    now: Evaluation,
    retain: RetainConfig,
    retained: Mapping[str, Collection[str]],
    answers: tuple[Path, Path] | None = None,
) -> list[Fall]:
    """What fell by more than it may; a score that was not measured in both did not.

    A score of answers is compared on the questions that both answered: time may have cut off others in one of them.

    Args:
        base: of the model that the run began with.
        now: of the model that is compared with it.
        retain: what is compared, and how far it may fall.
        retained: what may not fall, in words → its tasks.
        answers: the files of the answers of both, if they are there.
    """
    metric = now.metrics.get(retain.score)
    if metric is None:
        return []
    falls = []
    for name, tasks in retained.items():
        paired = _paired(answers, retain.score, tasks) if answers else None
        if paired is None:
            first, last = (value_over(each, retain.score, tasks) for each in (base, now))
        else:
            first, last = map(_mean, paired)
        change = change_of(metric, first, last)
        fall = -change if metric.better == "higher" else change
        if not math.isnan(fall) and fall > retain.max_drop:
            difference = paired_difference(*paired, scale=SHARE if metric.is_share else None) if paired else None
            falls.append(Fall(name, first, last, difference))
    return falls


def _paired(answers: tuple[Path, Path], score: str, tasks: Collection[str]) -> tuple[Scores, Scores] | None:
    """The score of the answers to the questions that both have it of; None if there are none."""
    first, last = (scores_in(path, score, tasks) for path in answers)
    both = {task: own.keys() & last[task].keys() for task, own in first.items() if task in last}
    if not any(both.values()):
        return None
    kept_first, kept_last = (
        {task: {key: found[task][key] for key in keys} for task, keys in both.items()} for found in (first, last)
    )
    return kept_first, kept_last


def _mean(scores: Scores) -> float:
    values = [value for own in scores.values() for value in own.values()]
    return math.fsum(values) / len(values)


def falls_in_words(falls: Collection[Fall], now: Evaluation, retain: RetainConfig) -> str:
    """What fell, and by how much."""
    metric = now.metrics[retain.score]
    parts = [
        f"{fall.name}: {metric.title} {value_text(metric, fall.first, 3)} → {value_text(metric, fall.last, 3)} "
        f"({change_text(metric, change_of(metric, fall.first, fall.last))}"
        f"{'' if fall.difference is None else f'; paired, {fall.difference}'})"
        for fall in falls
    ]
    return f"worse than the base model by more than evaluate.retain.max_drop ({retain.max_drop:g}): {'; '.join(parts)}"
