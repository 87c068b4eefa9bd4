"""The scores of several models side by side: each with its interval, and their differences on the same questions.

Rows are one task with one number of shots, or a mean: over all examples (micro), over tasks, or over clusters of tasks
(macro), of unseen and of trained tasks apart.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sft.evaluation.answer_scores import Clusters, Counts, ModelScores, TaskScore, keys_of, kinds_of, shots_of
from sft.scoring.statistics import (
    SHARE,
    Difference,
    Interval,
    macro_interval,
    micro_interval,
    paired_difference,
    task_interval,
)

NONE = Interval(math.nan, math.nan, math.nan, 0)
KIND_TEXTS: Mapping[bool, str] = {True: "unseen tasks", False: "trained tasks"}
OVER_EXAMPLES, OVER_TASKS, OVER_CLUSTERS = "mean over examples", "mean over tasks", "mean over clusters"


class Pair(NamedTuple):
    """How much higher a later model scores than an earlier one."""

    earlier: int
    later: int
    difference: Difference


@dataclass(frozen=True, slots=True)
class ComparedRow:
    """A task with a number of shots, or a mean of several."""

    name: str
    shots: int
    unseen: bool
    values: tuple[Interval, ...]
    """One for each model; NaN where it was not asked."""
    pairs: tuple[Pair, ...]
    """The last model and the first come first, then each with the one before it."""
    counts: tuple[Counts, ...]
    score_name: str = ""
    """Empty for a mean."""
    chance: float = math.nan
    is_share: bool = True

    @property
    def change(self) -> Difference | None:
        """From the first model to the last; None if there is only one."""
        return self.pairs[0].difference if self.pairs else None


def compared_tasks(models: Sequence[ModelScores]) -> list[ComparedRow]:
    """A row for each task and number of shots: unseen tasks first, then by name."""
    return [_task_row(models, *key) for key in keys_of(models)]


def compared_means(models: Sequence[ModelScores], clusters: Clusters) -> list[ComparedRow]:
    """The means of unseen and of trained tasks, by number of shots."""
    return list(_means(models, clusters))


def main_intervals(models: Sequence[ModelScores], clusters: Clusters, unseen: bool, shots: int) -> list[Interval]:
    """The main score of each model: over clusters where there are some, else over tasks."""
    every = _scores_of(models, unseen, shots)
    return [macro_interval(scores, clusters or None) if scores else NONE for scores in every]


def score_of(model: ModelScores, task: str, shots: int) -> Interval:
    """The score of one task."""
    found = model.tasks.get((task, shots))
    return task_interval(found.scores, found.scale) if found is not None and found.scores else NONE


def difference_of(earlier: ModelScores, later: ModelScores, task: str, shots: int) -> Difference | None:
    """How much higher the later model scores in a task; None if they have no question in common."""
    first, second = earlier.tasks.get((task, shots)), later.tasks.get((task, shots))
    if first is None or second is None:
        return None
    scale = SHARE if first.is_share and second.is_share else None
    found = paired_difference({task: first.scores}, {task: second.scores}, scale=scale)
    return found if found.num_pairs else None


def _task_row(models: Sequence[ModelScores], task: str, shots: int) -> ComparedRow:
    own = [model.tasks.get((task, shots)) for model in models]
    known = [score for score in own if score is not None]
    found = [
        (i, j, difference_of(models[i], models[j], task, shots)) for i, j in _pairs(len(models)) if own[i] and own[j]
    ]
    return ComparedRow(
        name=task,
        shots=shots,
        unseen=known[-1].unseen,
        values=tuple(score_of(model, task, shots) for model in models),
        pairs=tuple(Pair(i, j, difference) for i, j, difference in found if difference is not None),
        counts=tuple(score.counts if score else Counts() for score in own),
        score_name=known[-1].score_name,
        chance=known[-1].chance,
        is_share=all(score.is_share for score in known),
    )


def _means(models: Sequence[ModelScores], clusters: Clusters) -> Iterator[ComparedRow]:
    for unseen in kinds_of(models):
        for shots in shots_of(models):
            scores = _scores_of(models, unseen, shots)
            if not any(by_task for by_task in scores):
                continue
            counts = tuple(
                sum((score.counts for score in _shared(model, unseen, shots).values()), Counts()) for model in models
            )
            yield from _means_of(scores, clusters, unseen, shots, counts)


def _means_of(
    scores: Sequence[Mapping[str, Mapping[str, float]]],
    clusters: Clusters,
    unseen: bool,
    shots: int,
    counts: tuple[Counts, ...],
) -> Iterator[ComparedRow]:
    names = [OVER_EXAMPLES, OVER_TASKS, *([OVER_CLUSTERS] if clusters else [])]
    if max(map(len, scores)) == 1:
        names = names[:1]  # of one task, all three are the same
    for name in names:
        grouping = clusters if name == OVER_CLUSTERS else None
        values, pairs = [], []
        for by_task in scores:
            if not by_task:
                values.append(NONE)
            elif name == OVER_EXAMPLES:
                values.append(micro_interval(by_task))
            else:
                values.append(macro_interval(by_task, grouping))
        for i, j in _pairs(len(scores)):
            found = paired_difference(scores[i], scores[j], grouping, by_task=name == OVER_TASKS)
            if found.num_pairs:
                pairs.append(Pair(i, j, found))
        yield ComparedRow(name, shots, unseen, tuple(values), tuple(pairs), counts)


def _pairs(num_models: int) -> list[tuple[int, int]]:
    """The first and the last, then neighbours."""
    neighbours = [(i, i + 1) for i in range(num_models - 1)]
    return neighbours if num_models < 3 else [(0, num_models - 1), *neighbours]


def _shared(model: ModelScores, unseen: bool, shots: int) -> dict[str, TaskScore]:
    """The tasks that can be averaged."""
    every = model.tasks.items()
    return {task: s for (task, number), s in every if s.is_share and (s.unseen, number) == (unseen, shots)}


def _scores_of(models: Sequence[ModelScores], unseen: bool, shots: int) -> list[dict[str, Mapping[str, float]]]:
    """Of each model, the scores that are averaged: of the tasks that all have scores of, as means stand side by side.

    A model that has none of this kind leaves the others theirs.
    """
    own_scale = {task for model in models for (task, _), one in model.tasks.items() if not one.is_share}
    every = [
        {
            task: one.scores
            for task, one in _shared(model, unseen, shots).items()
            if one.scores and task not in own_scale
        }
        for model in models
    ]
    known = [{*by_task} for by_task in every if by_task]
    common = set.intersection(*known) if known else set()
    return [{task: scores for task, scores in by_task.items() if task in common} for by_task in every]
