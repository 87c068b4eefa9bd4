"""The scores of an arm's models, read from the files that its run has written."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from benchmarks.learning.arms import Arm
from benchmarks.learning.experiments import AFTER, BASE, WITHOUT
from benchmarks.learning.trainings import also_answered
from sft.answer_files import answers_of
from sft.evaluation.judged_answers import JudgedAnswer, read_judged
from sft.run_folder import RunFolder


class Scored(NamedTuple):
    """An answer."""

    task: str
    source: str
    record: str
    shots: int
    is_chosen: bool
    """Among options, by likelihood; else the model wrote it."""
    chance: float
    """What guessing would score; 0 for one that is written."""
    score: float


def answers_of_models(arm: Arm) -> Mapping[str, list[Scored]]:
    """The name of each model of the arm, as in `benchmarks.learning.experiments` → its answers."""
    run = RunFolder(Path(arm.config["run"]["dir"]))
    names = [stage["name"] for stage in arm.config["stages"]]
    paths = {BASE: answers_of(run.evaluation())} if arm.config["evaluate"]["before_training"] else {}
    for index, name in enumerate(names):
        model = arm.name if name == names[-1] else f"{arm.name}{AFTER}{name}"
        paths[model] = answers_of(run.evaluation(run.stage(index, name)))
    paths |= {f"{arm.name}{WITHOUT}": path for path in also_answered(run)}
    return {model: list(_scored(path)) for model, path in paths.items()}


def _scored(path: Path) -> Iterator[Scored]:
    for one in read_judged(path):
        # With fewer examples than asked for, it is not what the group is about.
        if one.score is not None and one.num_shown == one.shots:
            yield _score_of(one, one.score)


def _score_of(one: JudgedAnswer, score: float) -> Scored:
    num_options = len(one.answer.likelihoods)
    chance = 1 / num_options if num_options else 0.0
    return Scored(one.task, one.record.partition("/")[0], one.record, one.shots, num_options > 0, chance, score)
