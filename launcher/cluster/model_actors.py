"""Whole models on the workers of a job, a replica on each, to be measured on its questions."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from launcher.cluster.replicas import dealt, replicas_of, results, workers_connected
from sft.answering.answer import read_answer
from sft.answering.asking import KeepAnswers
from sft.config import SftConfig
from sft.data.planning.pack_plan import PackPlan
from sft.data.token_store import TokenStore
from sft.evaluation.scores import Sums
from sft.job_config import JobConfig
from sft.progress import Tell
from sft.questions.question import Question
from sft.training.asked import AskedQuestions
from sft.training.whole_evaluation import LoadedModel, Measurement, OpenModel, WholeModelPath, model_here
from sft.world import World

_QUESTIONS_AT_A_TIME = 64
"""What a worker gets at once: enough for a few full batches, few enough that none waits long for another at the end."""
_WHAT = "models were measured"


@contextmanager
def workers_of(job: JobConfig, console: Console) -> Iterator[OpenModel]:
    """What loads models for as long as the context is open: on the job's workers, or here if it has one and no cluster.

    Raises:
        UserError: the cluster cannot be reached.
    """
    device = "cuda:0" if job.cluster.gpus_per_worker else "cpu"
    with workers_connected(job.cluster, console) as connected:
        yield partial(_on_ray, job) if connected else partial(model_here, world=World(device=device))


@contextmanager
def _on_ray(
    job: JobConfig, config: SftConfig, measurement: Measurement, model: WholeModelPath, tell: Tell
) -> Iterator[LoadedModel]:
    about = (config.model_dump(mode="json", by_alias=True), str(measurement.folder), str(measurement.store.path), model)
    on_gpu = bool(job.cluster.gpus_per_worker)
    with replicas_of(job.cluster, _Replica, lambda rank, size: (*about, rank, size, on_gpu)) as replicas:
        yield LoadedModel(partial(_token_sums, replicas), partial(_ask, replicas, tell) if measurement.asked else None)


class _Replica:
    """A model on one worker. It computes what it is asked for and keeps nothing, so a lost one is simply made again."""

    def __init__(
        self,
        config: dict[str, Any],
        folder: str,
        store: str,
        model: WholeModelPath,
        rank: int,
        size: int,
        on_gpu: bool,
    ) -> None:
        """Load the model; `rank` of `size` is its share of the held-out packs."""
        read = SftConfig.model_validate(config)
        packs, questions = Path(folder) / "packs", Path(folder) / "questions"
        asked = AskedQuestions.open(questions, read) if questions.is_dir() else None
        measurement = Measurement(Path(folder), TokenStore.open(Path(store)), PackPlan.open(packs), asked, {})
        world = World(rank, size, device="cuda:0" if on_gpu else "cpu")
        self._opened = model_here(read, measurement, model, lambda: None, world)
        self._loaded = self._opened.__enter__()
        self._questions = {question.key: question for question in asked.questions} if asked else {}

    def token_sums(self) -> Sums:
        """Those of its share."""
        assert self._loaded.token_sums is not None
        return self._loaded.token_sums()

    def answers(self, keys: Sequence[str]) -> str:
        """The answers to these questions, as JSON."""
        found: list[dict[str, Any]] = []
        assert self._loaded.ask is not None
        self._loaded.ask(
            [self._questions[key] for key in keys], lambda answers: found.extend(a.as_json() for a in answers)
        )
        return json.dumps(found)


def _token_sums(replicas: Sequence[Any]) -> Sums:
    total: dict[str, dict[str, float]] = {}
    for sums in results([replica.token_sums.remote() for replica in replicas], _WHAT):
        for task, numbers in sums.items():
            own = total.setdefault(task, {})
            for name, value in numbers.items():
                own[name] = own.get(name, 0) + value
    return total


def _ask(replicas: Sequence[Any], tell: Tell, questions: Sequence[Question], keep: KeepAnswers) -> None:
    keys = [question.key for question in questions]
    parts = (keys[start : start + _QUESTIONS_AT_A_TIME] for start in range(0, len(keys), _QUESTIONS_AT_A_TIME))
    for _, answers in dealt(replicas, "answers", parts, _WHAT):
        keep([read_answer(content) for content in json.loads(answers)])
        tell()
