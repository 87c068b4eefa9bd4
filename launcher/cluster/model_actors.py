"""Whole models on the workers of a Ray cluster, a replica on each, to be measured: who is free gets more questions.

One worker without a cluster needs no Ray: the model is loaded here then.
"""

import json
import os
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import ray
from rich.console import Console

from launcher.cluster.connection import ray_session
from launcher.cluster.ray_words import in_a_sentence
from sft.answering.answer import read_answer
from sft.answering.asking import KeepAnswers
from sft.config import SftConfig
from sft.data.planning.pack_plan import PackPlan
from sft.data.token_store import TokenStore
from sft.errors import TrainingError, UserError
from sft.evaluation.scores import Sums
from sft.job_config import JobConfig
from sft.printable import counted
from sft.progress import Tell
from sft.questions.question import Question
from sft.training.asked import AskedQuestions
from sft.training.whole_evaluation import LoadedModel, Measurement, OpenModel, WholeModelPath, model_here
from sft.world import World

_QUESTIONS_AT_A_TIME = 64
"""What a worker gets at once: enough for a few full batches, few enough that none waits long for another at the end."""
_MAX_RETRIES = 5
"""Of a replica whose process or node died."""
_OBJECT_STORE_BYTES = 200 * 1024**2


@contextmanager
def workers_of(job: JobConfig, console: Console) -> Iterator[OpenModel]:
    """What loads models for as long as the context is open: on the job's workers, or here if it has one and no cluster.

    Raises:
        UserError: the cluster cannot be reached.
    """
    cluster = job.cluster
    num_workers = cluster.max_workers
    if num_workers == 1 and not os.environ.get("RAY_ADDRESS"):
        device = "cuda:0" if cluster.gpus_per_worker else "cpu"
        yield partial(model_here, world=World(device=device))
        return
    cpus = num_workers * cluster.cpus_per_worker
    with ray_session(cpus, int(num_workers * cluster.gpus_per_worker), _OBJECT_STORE_BYTES) as session:
        console.print(f"{counted(num_workers, 'replica')} on {session.where}", highlight=False)
        yield partial(_on_ray, job)


@contextmanager
def _on_ray(
    job: JobConfig, config: SftConfig, measurement: Measurement, model: WholeModelPath, tell: Tell
) -> Iterator[LoadedModel]:
    cluster, num_workers = job.cluster, job.cluster.max_workers
    make = ray.remote(
        num_cpus=cluster.cpus_per_worker,
        num_gpus=cluster.gpus_per_worker,
        max_restarts=_MAX_RETRIES,
        max_task_retries=_MAX_RETRIES,
    )(_Replica)
    about = (config.model_dump(mode="json", by_alias=True), str(measurement.folder), str(measurement.store.path), model)
    on_gpu = bool(cluster.gpus_per_worker)
    replicas: list[Any] = [make.remote(*about, rank, num_workers, on_gpu) for rank in range(num_workers)]
    try:
        yield LoadedModel(partial(_token_sums, replicas), partial(_ask, replicas, tell) if measurement.asked else None)
    finally:
        for replica in replicas:
            ray.kill(replica)


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
        measurement = Measurement(Path(folder), TokenStore.open(Path(store)), PackPlan.open(packs), asked)
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
    for sums in _results([replica.token_sums.remote() for replica in replicas]):
        for task, numbers in sums.items():
            own = total.setdefault(task, {})
            for name, value in numbers.items():
                own[name] = own.get(name, 0) + value
    return total


def _ask(replicas: Sequence[Any], tell: Tell, questions: Sequence[Question], keep: KeepAnswers) -> None:
    left = deque(question.key for question in questions)
    under_way: dict[Any, Any] = {}

    def give(replica: Any) -> None:
        if keys := [left.popleft() for _ in islice(range(len(left)), _QUESTIONS_AT_A_TIME)]:
            under_way[replica.answers.remote(keys)] = replica

    for replica in replicas:
        give(replica)
    while under_way:
        [done], _ = ray.wait([*under_way], num_returns=1)
        replica = under_way.pop(done)
        [answers] = _results([done])
        keep([read_answer(content) for content in json.loads(answers)])
        tell()
        give(replica)


def _results(references: Sequence[Any]) -> Iterator[Any]:
    try:
        yield from ray.get(list(references))
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, UserError):
            raise UserError(str(error.cause)) from None
        raise
    except ray.exceptions.RayError as error:
        raise TrainingError(
            f"Workers were lost while models were measured: {in_a_sentence(error)}. The same command goes on with the "
            "answers that are there."
        ) from error
