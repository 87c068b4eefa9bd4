"""Runs a job from beginning to end: prepare, place the workers, watch them, show what came out.

Called again on the same run folder it goes on where the last call ended, however that was.
"""

import os
import threading
from concurrent.futures import Future
from contextlib import nullcontext
from typing import Any

import ray
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer
from rich.console import Console
from rich.text import Text

from launcher.cluster import ray_cluster, signals_ask_to_stop
from launcher.config import JobConfig
from launcher.console import say_error, styled
from launcher.node_watch import nodes_watched
from launcher.plan import JobPlan, plan_job
from launcher.preflight.start import pass_preflight
from launcher.preparation import prepare
from launcher.progress import RunProgress, StageProgress
from launcher.worker import train_worker
from sft.config import SftConfig
from sft.data.planning.pack_plan import PackPlan
from sft.data.token_store import TokenStore
from sft.errors import UserError
from sft.evaluation.generation import choose_prompts, write_sample_answers
from sft.evaluation.report import write_report
from sft.evaluation.run_records import read_run
from sft.evaluation.tables import heldout_table
from sft.model.first_look import look_at
from sft.printable import short_name, shortened
from sft.run_folder import RunFolder
from sft.run_lock import run_lock
from sft.training.failures import describe_end
from sft.training.run_record import anchor_paths
from sft.training.run_storage import why_unusable
from sft.training.watched_run import collective_timeout, read_end
from sft.training.workload import Workload

DONE, FAILED, STOPPED = 0, 1, 3

_MOST_STARTS = 1000
"""Of the workers in one call. They count themselves how many have come no further (see `sft.training.failures`); this
bounds those that end before they can count."""

_NEVER_SECONDS = 1e9
_MAX_REASON_CHARS = 4000
_MAX_SAMPLE_CHARS = 600


def train(job: JobConfig, console: Console, until: str | None = None) -> int:
    """Train every stage that is not finished, and report; returns the exit code.

    Args:
        job: the whole job, also where only a part of it is trained.
        console: where it is shown.
        until: the last stage to train now. Default: all.

    Raises:
        UserError: config, data or model cannot be used; said before any worker starts where it can be.
    """
    job = job._replace(sft=anchor_paths(job.sft))
    until = until or job.sft.stages[-1].name
    names = [stage.name for stage in job.sft.stages]
    if until not in names:
        raise UserError(f"--until {until}: the config has no such stage. It has: {', '.join(names)}.")
    for note in look_at(job.sft.model, job.sft.train.packing, job.sft.data.max_len_tokens).notes:
        console.print(note, highlight=False, markup=False)
    with run_lock(RunFolder(job.sft.run.dir).lock, _end_at_once, console.print):
        return _train(job, names.index(until) + 1, console)


def _end_at_once(message: str) -> None:
    """Another driver works in the run folder: the workers end with this process, which owns them."""
    say_error(message)
    os._exit(FAILED)


def _train(job: JobConfig, num_stages: int, console: Console) -> int:
    plan = plan_job(job)
    run = RunFolder(job.sft.run.dir)
    wanted = [run.stage(i, stage.name).complete for i, stage in enumerate(job.sft.stages[:num_stages])]
    if job.cluster.preflight and not all(complete.is_file() for complete in wanted):
        pass_preflight(job, console)
    workload, store, plans = prepare(job.sft, console)
    job = job._replace(sft=_first_stages(job.sft, num_stages))
    config = job.sft
    stages = [
        StageProgress(stage.name, int(stage_plan.manifest["num_steps"]), run.stage(i, stage.name).metrics)
        for i, (stage, stage_plan) in enumerate(zip(config.stages, plans[:num_stages], strict=True))
    ]
    folders = [run.stage(i, stage.name) for i, stage in enumerate(config.stages)]
    if all(folder.complete.is_file() for folder in folders) and not _samples_are_missing(job, run, workload):
        console.print("Every stage is finished; nothing is left to train.")
        return _show_result(job, run, console)
    with ray_cluster(plan) as where, signals_ask_to_stop(run.stop_file):
        if not all(folder.complete.is_file() for folder in folders):
            console.print(f"Training with {_count(plan)} on {where}.")
            with RunProgress(stages, run, console), nodes_watched() if plan.is_elastic else nullcontext():
                exit_code = _fit(job, plan, workload, run, console)
            if exit_code != DONE:
                if why_unusable(run) is None:
                    write_report(run)
                return exit_code
        if _samples_are_missing(job, run, workload):
            _answer_samples(job, run, workload, store)
    return _show_result(job, run, console)


def _first_stages(config: SftConfig, num_stages: int) -> SftConfig:
    """The config of the run as far as it is trained now: the sample answers are those of its last model."""
    if num_stages == len(config.stages):
        return config
    evaluate = config.evaluate.model_copy(update={"sample_answers": 0})
    return config.model_copy(update={"stages": config.stages[:num_stages], "evaluate": evaluate})


def _fit(job: JobConfig, plan: JobPlan, workload: Workload, run: RunFolder, console: Console) -> int:
    cluster = job.cluster
    gpus = float(cluster.gpus_per_worker)
    resources = {"CPU": float(cluster.cpus_per_worker), **({"GPU": gpus} if gpus else {})}
    first_attempt = run.latest_attempt() + 1
    scaling: dict[str, Any] = {
        "num_workers": cluster.workers,
        "use_gpu": gpus > 0,
        "resources_per_worker": resources,
        # A group that Ray enlarges by itself loses the steps since its last checkpoint: ours asks for it (see `Loop`).
        "elastic_resize_monitor_interval_s": _NEVER_SECONDS,
    }
    trainer = TorchTrainer(
        train_worker,
        train_loop_config={
            "config": job.sft.model_dump(mode="json", by_alias=True),
            "workload": workload.as_json(),
            "num_threads": cluster.cpus_per_worker,
            "max_workers": cluster.max_workers,
            "resources_per_worker": resources,
            "limits": {
                "first_attempt": first_attempt,
                "max_failures": cluster.max_failures,
                "hang_timeout_seconds": cluster.hang_timeout_seconds,
            },
        },
        torch_config=TorchConfig(timeout_s=round(collective_timeout(cluster.hang_timeout_seconds).total_seconds())),
        scaling_config=ScalingConfig(**scaling),
        run_config=RunConfig(
            name="ray",
            storage_path=str(run.path),
            failure_config=FailureConfig(max_failures=_MOST_STARTS),
        ),
    )
    try:
        _fit_in_thread(trainer)
    except ray.train.TrainingFailedError as error:
        began = run.latest_attempt() >= first_attempt
        why = describe_end(run.attempt(run.latest_attempt())) if began else _last_line(error)
        return _say_failed(why, run, console)
    ended = read_end(run)
    if ended["why"] == "wrong input":
        raise UserError(ended["message"])
    if ended["why"] == "failed":
        return _say_failed(ended["message"], run, console)
    if ended["why"] == "stopped":
        console.print("Stopped on request, with a checkpoint. The same command goes on.")
        return STOPPED
    return DONE


def _say_failed(why: str, run: RunFolder, console: Console) -> int:
    console.print(styled("[red]The training cannot go on:[/] {}", shortened(why, _MAX_REASON_CHARS)))
    console.print(f"The workers' logs: {run.attempts}", highlight=False, soft_wrap=True)
    return FAILED


def _fit_in_thread(trainer: TorchTrainer) -> None:
    """Run the trainer beside the main thread, in which it would take Ctrl-C for itself and end without a checkpoint."""
    ended: Future[None] = Future()

    def fit() -> None:
        try:
            trainer.fit()
        except BaseException as error:  # it is raised again, in the main thread
            ended.set_exception(error)
        else:
            ended.set_result(None)

    threading.Thread(target=fit, name="ray-train", daemon=True).start()
    ended.result()


def _samples_are_missing(job: JobConfig, run: RunFolder, workload: Workload) -> bool:
    wanted = job.sft.evaluate.sample_answers > 0 and workload.heldout is not None
    return wanted and not run.sample_answers.is_file()


def _answer_samples(job: JobConfig, run: RunFolder, workload: Workload, store: TokenStore) -> None:
    """On a worker's machine: the driver's may have no GPU."""
    config = job.sft
    assert workload.heldout is not None
    prompts = choose_prompts(store, PackPlan.open(workload.heldout), config.evaluate.sample_answers)
    last = run.stage(len(config.stages) - 1, config.stages[-1].name).model
    answer = ray.remote(num_cpus=job.cluster.cpus_per_worker, num_gpus=job.cluster.gpus_per_worker)(
        write_sample_answers
    )
    ray.get(answer.remote(run.sample_answers.absolute(), config.model, config.model.path, str(last), prompts))


def _show_result(job: JobConfig, run: RunFolder, console: Console) -> int:
    report = write_report(run)
    records = read_run(run)
    if records.evaluations:
        console.print(heldout_table(records.evaluations))
    # The shortest, for a console; the report shows them all.
    for sample in sorted(records.sample_answers, key=lambda s: len(s.prompt + s.before + s.after))[:1]:
        console.rule(Text(f"an example of {short_name(sample.task)}"), style="dim")
        for title, text in (
            ("prompt", sample.prompt),
            ("reference", sample.reference),
            ("before", sample.before),
            ("after", sample.after),
        ):
            console.print(styled("[bold]{:>9}[/]  ", title), end="")
            console.print(shortened(text, _MAX_SAMPLE_CHARS))
    last = job.sft.stages[-1].name
    console.print(f"model   {run.stage(len(job.sft.stages) - 1, last).model}", highlight=False, soft_wrap=True)
    console.print(f"report  {report}", highlight=False, soft_wrap=True)
    return DONE


def _count(plan: JobPlan) -> str:
    return f"{plan.workers} workers ({plan.gpus} GPUs)" if plan.gpus else f"{plan.workers} CPU workers"


def _last_line(error: BaseException) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(error).__name__
