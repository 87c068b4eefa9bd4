"""The process that speaks to Ray: connects to it or starts it, has Ray Train run the workers, and says how that ended.

The driver starts it (see `trainer_process`), and starts another if Ray is lost. Ray ends a process that is connected to
it when the head is gone. So the driver, which holds the run, is not connected to Ray itself. This process ends with the
driver, and a Ray that this process started ends with it.
"""

import json
import os
import pickle
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from concurrent.futures import Future, wait
from pathlib import Path
from typing import Any, NoReturn

from sft.paused_collector import paused_collector

with paused_collector():
    import ray
    from ray.train import FailureConfig, RunConfig, ScalingConfig

from launcher.cluster.connection import Session, ray_cluster
from launcher.cluster.hidden_gpus import runtime_env
from launcher.cluster.node_watch import forget_reservation, nodes_watched
from launcher.cluster.ray_trainer import RayTrainer, begin_coordinator
from launcher.cluster.ray_watch import RayWatch
from launcher.cluster.ray_words import WorkerRecord, in_a_sentence
from launcher.cluster.torch_group import TorchGroupConfig
from launcher.cluster.trainer_process import TrainerRequest, samples_are_missing
from launcher.cluster.worker_start import train_worker
from launcher.interruption import pass_signals_by
from launcher.plan import plan_job
from sft.data.planning.pack_plan import PackPlan
from sft.data.token_store import TokenStore
from sft.errors import UserError
from sft.job_config import JobConfig
from sft.run_events import EventLog
from sft.run_folder import RunFolder
from sft.run_lock import Held, read_holder
from sft.training.failures import describe_error
from sft.training.hang_watch import collective_timeout
from sft.training.last_words import NODE, describe_end
from sft.training.process import quiet_third_parties

_MOST_STARTS = 1000
"""The most starts of the workers in one call. The workers themselves count starts without progress (see
`sft.training.restarts`); this bounds starts that end before they can count."""

_NEVER_SECONDS = 1e9
_LOOK_SECONDS = 1.0


class LostError(Exception):
    """Ray, or what it runs beside the workers, is gone; in words."""


class NotNeededError(Exception):
    """The driver, which had started this process early, has closed the pipe without a request."""


class AnswersError(Exception):
    """The sample answers cannot be written, and another try would not change that; in words."""


Tell = Callable[[Mapping[str, str | None]], None]
"""Sends a message to the driver; `is` says which: connected, or one of `trainer_process.Kind`."""


def run_trainer(job: JobConfig, read_request: Callable[[], TrainerRequest], tell: Tell) -> None:
    """Train, and write the sample answers if the run is then finished; tell the driver how it ended.

    Ray is there for the job before the request is read, which may have to be waited for.
    """
    try:
        with ray_cluster(plan_job(job)) as session:
            if session.is_own:
                begin_coordinator()
            request = read_request()
            tell({"is": "connected", "where": session.where, "address": session.address, "note": session.note})
            outcome = _work(session, request)
            tell(outcome)
            if outcome["is"] == "lost":
                # Disconnecting from a Ray that is gone may take minutes. What is left of it ends with this process.
                os._exit(0)
    except UserError as error:
        tell({"is": "wrong input", "text": str(error)})


def _work(session: Session, request: TrainerRequest) -> dict[str, str | None]:
    try:
        if request.trains:
            _watched(session, request, _fit)
        if _samples_are_due(request):
            _watched(session, request, _answer_samples)
    except LostError as error:
        return {"is": "lost", "text": str(error)}
    except AnswersError as error:
        return {"is": "gave up", "text": str(error)}
    except ray.train.WorkerGroupError:
        run = RunFolder(request.job.sft.run.dir)
        return {"is": "gave up", "text": describe_end(run.attempt(run.latest_attempt()))}
    except (ray.exceptions.RayError, ray.train.TrainingFailedError) as error:
        return {"is": "lost", "text": f"Ray Train's controller was lost: {in_a_sentence(error)}"}
    return {"is": "finished"}


def _watched(session: Session, request: TrainerRequest, work: Callable[[TrainerRequest], None]) -> None:
    """Do the work in a thread, while the main thread watches whether Ray is there.

    Raises:
        LostError: Ray is gone.
    """
    pass_signals_by()  # the driver asks for a stop by a file
    run = RunFolder(request.job.sft.run.dir)
    driver = read_holder(run.lock)
    ended: Future[None] = Future()

    def do() -> None:
        try:
            work(request)
        except BaseException as error:  # it is raised again, in the main thread
            ended.set_exception(error)
        else:
            ended.set_result(None)

    def tell_of_node(name: str) -> None:
        if number := run.latest_attempt():
            text = f"node {name} has left the Ray cluster"
            EventLog(run.attempt(number), "nodes").add("lost", text, how=NODE, node=name)

    threading.Thread(target=do, name="ray-train", daemon=True).start()
    watch = RayWatch(session)
    with nodes_watched(tell_of_node):
        while not wait([ended], timeout=_LOOK_SECONDS).done:
            if text := watch.what_is_lost():
                raise LostError(text)
            if _is_taken_over(run, driver):
                _leave_to_another()
        if ended.exception() is not None:
            # Ray reports a lost actor before anyone can see that its raylet is lost.
            time.sleep(_LOOK_SECONDS)
            if text := watch.what_is_lost(patience_seconds=0):
                raise LostError(text) from ended.exception()
        ended.result()


def _is_taken_over(run: RunFolder, driver: Held | None) -> bool:
    """Whether another driver holds the run's lock now, because that of this process was suspended."""
    try:
        now = read_holder(run.lock)
    except (OSError, UserError):
        return False
    return now is not None and driver is not None and now.who != driver.who


def _leave_to_another() -> NoReturn:
    """End this process at once, and the ranks with it.

    The driver finds out by itself when it wakes, and ends. If it heard of a loss, it would first write that into the
    attempt of the other: so the pipe that it reads stays open until then.
    """
    listens = [sys.executable, "-c", "import sys; sys.stdin.buffer.read()"]
    subprocess.Popen(listens, pass_fds=(int(sys.argv[1]),), start_new_session=True)
    os._exit(0)


def _fit(request: TrainerRequest) -> None:
    job, cluster = request.job, request.job.cluster
    gpus = float(cluster.gpus_per_worker)
    resources = {"CPU": float(cluster.cpus_per_worker), **({"GPU": gpus} if gpus else {})}
    scaling: dict[str, Any] = {
        "num_workers": cluster.workers,
        "use_gpu": gpus > 0,
        "resources_per_worker": resources,
        # A group that Ray enlarges by itself loses the steps since its last checkpoint: ours asks for it (see `Loop`).
        "elastic_resize_monitor_interval_s": _NEVER_SECONDS,
    }
    run = RunFolder(job.sft.run.dir)
    trainer: Any = RayTrainer(
        train_worker,
        train_loop_config={
            # Only the driver posts alerts, and Ray may show others what it passes on.
            "config": job.sft.model_dump(mode="json", by_alias=True, exclude={"alerts"}),
            "workload": request.workload.as_json(),
            "num_threads": cluster.cpus_per_worker,
            "max_workers": cluster.max_workers,
            "resources_per_worker": resources,
            "limits": {
                "first_attempt": request.first_attempt,
                "max_failures": cluster.max_failures,
                "hang_timeout_seconds": cluster.hang_timeout_seconds,
            },
        },
        backend_config=TorchGroupConfig(
            timeout_s=round(collective_timeout(cluster.hang_timeout_seconds).total_seconds()),
            deterministic=job.sft.train.deterministic,
        ),
        scaling_config=ScalingConfig(**scaling),
        # Ray shows type checkers the RunConfig of its first version.
        run_config=RunConfig(  # type: ignore[call-arg]
            name=run.ray.name,
            storage_path=str(run.path),
            failure_config=FailureConfig(max_failures=_MOST_STARTS),
            callbacks=[WorkerRecord(run)],  # type: ignore[list-item]
            worker_runtime_env=runtime_env(cluster),
        ),
    )
    try:
        trainer.fit()
    except ray.exceptions.RayError:
        forget_reservation(trainer.train_run_context.run_id)
        raise


def _samples_are_due(request: TrainerRequest) -> bool:
    run, config = RunFolder(request.job.sft.run.dir), request.job.sft
    is_finished = run.has_finished(stage.name for stage in config.stages)
    return is_finished and samples_are_missing(config, run, request.workload)


def _answer_samples(request: TrainerRequest) -> None:
    """On a worker's machine: the driver's may have no GPU."""
    from sft.evaluation.generation import choose_prompts, write_sample_answers  # noqa: PLC0415  (seconds: transformers)

    config, cluster, heldout = request.job.sft, request.job.cluster, request.workload.heldout
    assert heldout is not None
    run, store = RunFolder(config.run.dir), TokenStore.open(request.workload.store)
    prompts = choose_prompts(store, PackPlan.open(heldout), config.evaluate.sample_answers)
    last = run.stage(len(config.stages) - 1, config.stages[-1].name).model
    cpus, gpus = cluster.cpus_per_worker, cluster.gpus_per_worker
    answer = ray.remote(num_cpus=cpus, num_gpus=gpus, runtime_env=runtime_env(cluster))(write_sample_answers)
    path, device = run.sample_answers.absolute(), "cuda" if gpus else "cpu"
    try:
        ray.get(answer.remote(path, config.model, config.model.path, str(last), prompts, device))
    except ray.exceptions.RayTaskError as error:
        raise AnswersError(
            f"{describe_error(error.cause).rstrip('.')}. A worker loads the whole model for the sample "
            "answers. Without them (evaluate.sample_answers=0) the same command succeeds."
        ) from error
    except ray.exceptions.RayError as error:
        raise LostError(f"the sample answers were not written: {in_a_sentence(error)}") from error


def _end_with_the_driver() -> None:
    """The driver keeps the other end of standard input open for as long as it lives."""
    sys.stdin.buffer.read()
    os._exit(1)


def _print_into(log: Path) -> None:
    """Also what Ray prints. A process that was started early has printed nowhere until now."""
    with log.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)


def main() -> None:
    """Read the request from standard input; report to the driver through the file descriptor in the argument."""
    pass_signals_by()  # the driver asks for a stop by a file
    quiet_third_parties()
    lines = os.fdopen(int(sys.argv[1]), "w", encoding="utf-8")

    def read() -> JobConfig | TrainerRequest:
        try:
            message: JobConfig | TrainerRequest = pickle.load(sys.stdin.buffer)
        except EOFError:
            raise NotNeededError from None
        if isinstance(message, TrainerRequest):
            _print_into(RunFolder(message.job.sft.run.dir).ray_log)
            threading.Thread(target=_end_with_the_driver, name="life-line", daemon=True).start()
        return message

    def read_request() -> TrainerRequest:
        message = first if isinstance(first, TrainerRequest) else read()
        assert isinstance(message, TrainerRequest)
        return message

    def tell(message: Mapping[str, str | None]) -> None:
        lines.write(json.dumps(message) + "\n")
        lines.flush()

    try:
        first = read()
        run_trainer(first.job if isinstance(first, TrainerRequest) else first, read_request, tell)
    except NotNeededError:
        pass
    except Exception as error:  # the process ends here: no error may go unreported
        traceback.print_exc()
        tell({"is": "lost", "text": describe_error(error)})
    # A normal exit of Python would abort, because the other thread is still reading.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
