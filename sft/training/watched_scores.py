"""Whether the scores that decide something will be measured (`checkpoint.best`, `evaluate.retain`); asked beforehand.

A name that no evaluation has would never be better and never fall, and nobody would notice.
"""

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import numpy as np

from sft.config import SftConfig
from sft.config_words import did_you_mean
from sft.data.planning.pack_plan import PackPlan
from sft.data.token_store import TokenStore
from sft.errors import UserError
from sft.evaluation.forgetting import retained_tasks
from sft.evaluation.judged_answers import metrics_of_task, scores_of
from sft.evaluation.scores import LOSS, TOKEN_ACCURACY
from sft.questions.question_set import open_questions
from sft.scoring.metric import Metric

_OF_TOKENS: Mapping[str, Metric] = {"loss": LOSS, "token_accuracy": TOKEN_ACCURACY}

Measured = Mapping[str, Mapping[str, Metric]]
"""Task → what is measured of it, by name."""


def check_watched(config: SftConfig, store: TokenStore, heldout: PackPlan | None, questions: Path | None) -> None:
    """Check the names of what decides; all of them at once.

    Args:
        config: the run.
        store: its data.
        heldout: the plan of the held-out examples that are measured; None if there are none.
        questions: the folder of what models are asked; None if they are asked nothing.

    Raises:
        UserError: a score is not measured, or not for a task that is named.
    """
    best, retain = config.checkpoint.best, config.evaluate.retain
    if best is None and retain is None:
        return
    problems = []
    if heldout is None:
        problems = ["nothing is held out, so no score is measured. Set data.holdout.share, or remove these sections."]
    else:
        measured = _measured(config, store, heldout, questions)
        if best is not None:
            problems += _problems("checkpoint.best", best.score, [] if best.task is None else [best.task], measured)
        if retain is not None:
            retained = retained_tasks(retain, store, heldout)
            empty = [name for name, tasks in retained.items() if not tasks]
            problems += [f"evaluate.retain: no example of {name} is held out and measured" for name in empty]
            problems += _problems("evaluate.retain", retain.score, sorted({*sum(retained.values(), ())}), measured)
    if problems:
        raise UserError("\n".join(problems))


def _measured(config: SftConfig, store: TokenStore, heldout: PackPlan, questions: Path | None) -> Measured:
    tasks = np.unique(store.task_ids[np.array(heldout.example_ids)])
    measured: dict[str, dict[str, Metric]] = {store.tasks[task]: {**_OF_TOKENS} for task in tasks}
    asked = [] if questions is None else open_questions(questions)
    scores = scores_of(asked, config.evaluate)
    for task, score in scores.items():
        own = [question for question in asked if question.task == task]
        measured.setdefault(task, {}).update(metrics_of_task(score, own))
    return measured


def _problems(path: str, score: str, tasks: Collection[str], measured: Measured) -> Iterator[str]:
    known = {name: metric for metrics in measured.values() for name, metric in metrics.items()}
    graded = [name for name, metric in known.items() if metric.better != "neither"]
    if score not in graded:
        what = "says nothing about better or worse" if score in known else "is not measured in this run"
        yield f"{path}.score: {score} {what}; {did_you_mean(score, graded)}"
        return
    for task in tasks:
        if task not in measured:
            way_out = did_you_mean(task, [*measured])
            yield f"{path}: no example of the task {task} is held out and measured; {way_out}"
        elif score not in measured[task]:
            of = [name for name in measured[task] if name in graded]
            yield f"{path}.score: {score} is not measured of the task {task}; {did_you_mean(score, of)}"
