"""The scores of a model's answers by task and number of shots, read from the file that holds each of its answers.

base.json, base.answers.jsonl ─▶ ModelScores: (task, shots) ─▶ TaskScore: question ─▶ score, and counts
"""

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path

from sft.evaluation.judged_answers import JudgedAnswer, read_judged
from sft.evaluation.score_rows import title_of
from sft.evaluation.scores import Evaluation
from sft.scoring.statistics import SHARE, Scale

Clusters = Mapping[str, tuple[str, ...]]
"""Cluster → its tasks."""


@dataclass(frozen=True, slots=True)
class Counts:
    """What became of the questions of a task."""

    num_answered: int = 0
    num_written: int = 0
    """Answers that the model wrote; the others it chose."""
    num_stopped: int = 0
    """Of those that it wrote: it ended them itself."""
    num_not_judged: int = 0
    """Answers without a verdict, for no fault of theirs."""
    num_not_answered: int = 0
    """Questions for which no time was left."""

    def __add__(self, other: "Counts") -> "Counts":
        """Of both together."""
        return Counts(*(getattr(self, name) + getattr(other, name) for name in self.__slots__))

    @property
    def stopped_share(self) -> float:
        """Of the written answers, those that the model ended itself; NaN if it wrote none."""
        return self.num_stopped / self.num_written if self.num_written else math.nan


@dataclass(frozen=True, slots=True)
class TaskScore:
    """The answers of one model to the questions of one task, all with the same number of shots."""

    score_name: str
    unseen: bool
    scores: Mapping[str, float]
    """Question → score, of the answers with a verdict."""
    chance: float
    """What guessing would score, where an option is chosen; else NaN."""
    is_share: bool
    """Whether scores lie between 0 and 1, and more is better: only these are averaged over tasks."""
    counts: Counts

    @property
    def scale(self) -> Scale:
        """For intervals."""
        return SHARE if self.is_share else None


@dataclass(frozen=True, slots=True)
class ModelScores:
    """The scores of one model."""

    title: str
    stage_index: int | None
    step: int | None
    """The step of the stage after which it answered; None for the first model and at the end of a stage."""
    tasks: Mapping[tuple[str, int], TaskScore]
    """By task and number of shots."""

    def with_trained(self, trained: Collection[str]) -> "ModelScores":
        """The same scores, if these tasks are trained ones and the others unseen."""
        tasks = {(task, n): replace(one, unseen=task not in trained) for (task, n), one in self.tasks.items()}
        return replace(self, tasks=tasks)


def read_scores(evaluation: Evaluation, path: Path) -> ModelScores | None:
    """The scores of the model that was evaluated, from the file of its answers; None if there is no such file.

    Questions that were not answered are counted from the evaluation.
    """
    if not path.is_file():
        return None
    gathered: dict[tuple[str, int], _Gathered] = {}
    for one in read_judged(path):
        gathered.setdefault((one.task, one.shots), _Gathered(one)).add(one)
    tasks = {key: found.done(evaluation, _not_answered(evaluation, *key)) for key, found in gathered.items()}
    return ModelScores(title_of(evaluation), evaluation.stage_index, evaluation.step, tasks)


def keys_of(models: Iterable[ModelScores]) -> list[tuple[str, int]]:
    """Task and shots of all models: unseen tasks first, then by name and number."""
    found = {key: score.unseen for model in models for key, score in model.tasks.items()}
    return sorted(found, key=lambda key: (not found[key], key))


def shots_of(models: Iterable[ModelScores]) -> list[int]:
    """The numbers of shots that were asked with."""
    return sorted({shots for model in models for _, shots in model.tasks})


def kinds_of(models: Iterable[ModelScores]) -> list[bool]:
    """Whether there are unseen tasks (True), trained ones (False), or both."""
    every = chain.from_iterable(model.tasks.values() for model in models)
    return sorted({score.unseen for score in every if score.is_share}, reverse=True)


@dataclass
class _Gathered:
    first: JudgedAnswer
    metric: str = ""
    """The first of its scores."""
    scores: dict[str, float] = field(default_factory=dict)
    chances: list[float] = field(default_factory=list)
    counts: Counts = field(default_factory=Counts)

    def add(self, one: JudgedAnswer) -> None:
        is_choice = bool(one.answer.likelihoods)
        chance = one.scores.get("chance", 1 / len(one.answer.likelihoods) if is_choice else None)
        if chance is not None:
            self.chances.append(chance)
        if one.score is not None:
            self.scores[one.record] = one.score
            self.metric = self.metric or next(iter(one.scores), "")
        self.counts += Counts(1, not is_choice, not is_choice and one.answer.stopped, one.score is None)

    def done(self, evaluation: Evaluation, num_not_answered: int) -> TaskScore:
        metric = evaluation.metrics.get(self.metric)
        return TaskScore(
            score_name=self.first.score_name,
            unseen=self.first.unseen,
            scores=self.scores,
            chance=sum(self.chances) / len(self.chances) if self.chances else math.nan,
            # What the scores of this model happen to be says nothing of those of another.
            is_share=metric is not None and metric.is_share if self.metric else self.first.score_name != "length",
            counts=self.counts + Counts(num_not_answered=num_not_answered),
        )


def _not_answered(evaluation: Evaluation, task: str, shots: int) -> int:
    numbers = evaluation.tasks[task].numbers if task in evaluation.tasks else {}
    return int(numbers.get(f"num_not_answered@{shots}" if shots else "num_not_answered", 0))
