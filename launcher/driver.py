"""Runs a job from beginning to end: prepare, have it trained, show what came out.

Called again on the same run folder it goes on where the last call ended, however that was.
"""

from collections.abc import Sequence
from contextlib import ExitStack

from rich.console import Console
from rich.text import Text

from launcher.cluster.trainer_process import Outcome, TrainerRequest, samples_are_missing
from launcher.console import styled
from launcher.held_run import work_in
from launcher.interruption import STOPPED, signals_ask_to_stop
from launcher.plan import JobPlan, plan_job
from launcher.preflight.start import pass_preflight
from launcher.preparation import prepare
from launcher.progress import RunProgress, StageProgress
from launcher.supervision import supervise
from sft.attempt_record import End, write_end
from sft.config import SftConfig
from sft.errors import UserError
from sft.evaluation.report import write_report
from sft.evaluation.run_records import read_run
from sft.evaluation.scores import metrics_of
from sft.evaluation.tables import score_table
from sft.job_config import JobConfig
from sft.model.first_look import look_at
from sft.model.weight_values import check_values
from sft.monitoring.alerts import Kind, alerts_posted
from sft.printable import short_name, shortened
from sft.run_folder import RunFolder
from sft.sinks.processes import sinks_fed
from sft.sinks.table import check_sinks
from sft.training.run_record import anchor_paths, is_extended
from sft.training.run_storage import why_unusable
from sft.training.watched_run import end_of_last_attempt, unended_attempt

DONE, FAILED = 0, 1
_ALERTS: dict[int, Kind] = {DONE: "finished", FAILED: "failed", STOPPED: "stopped"}

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
    check_sinks(job.sft.logging)
    for note in look_at(job.sft.model, job.sft.train.packing, job.sft.data.max_len_tokens).notes:
        console.print(note, highlight=False, markup=False)
    now = names[: names.index(until) + 1]
    return work_in(RunFolder(job.sft.run.dir), lambda: _train_and_tell(job, now, console), console)


def _train_and_tell(job: JobConfig, names: Sequence[str], console: Console) -> int:
    run = RunFolder(job.sft.run.dir)
    with alerts_posted(job.sft.alerts, run, job.sft.run.name) as post_end:
        before = run.latest_attempt()
        code = _train(job, names, console)
        if code != DONE or run.latest_attempt() > before:  # else there was nothing to train
            post_end(_ALERTS[code], end_of_last_attempt(run).message)
        return code


def _train(job: JobConfig, names: Sequence[str], console: Console) -> int:
    plan = plan_job(job)
    run = RunFolder(job.sft.run.dir)
    if not run.latest_attempt():
        check_values(job.sft.model.path)  # a run that has begun has trained on them
    if job.cluster.preflight and (is_extended(job.sft) or not run.has_finished(names)):
        pass_preflight(job, console)
    workload, _store, plans = prepare(job.sft, console)
    job = job._replace(sft=_first_stages(job.sft, len(names)))
    is_finished = run.has_finished(names)  # only now: a stage that gets more budget is not
    if is_finished and not samples_are_missing(job.sft, run, workload):
        console.print("Every stage is finished; nothing is left to train.")
        return _show_result(job, run, console)
    stages = [
        StageProgress(name, int(stage_plan.manifest["num_steps"]), run.stage(i, name).metrics)
        for i, (name, stage_plan) in enumerate(zip(names, plans, strict=False))
    ]
    request = TrainerRequest(job, workload, run.latest_attempt() + 1, trains=not is_finished)
    with signals_ask_to_stop(run.stop_file):
        with ExitStack() as shown:
            if request.trains:
                shown.enter_context(RunProgress(stages, run, console))
                shown.enter_context(sinks_fed(job.sft, request.first_attempt))
            outcome = supervise(request, _count(plan), console)
        exit_code = _say_end(outcome, request, run, console)
    if exit_code != DONE:
        if why_unusable(run) is None:
            write_report(run)
        return exit_code
    return _show_result(job, run, console)


def _first_stages(config: SftConfig, num_stages: int) -> SftConfig:
    """The config of the run as far as it is trained now: the sample answers are those of its last model."""
    if num_stages == len(config.stages):
        return config
    evaluate = config.evaluate.model_copy(update={"sample_answers": 0})
    return config.model_copy(update={"stages": config.stages[:num_stages], "evaluate": evaluate})


def _say_end(outcome: Outcome, request: TrainerRequest, run: RunFolder, console: Console) -> int:
    if outcome.kind == "gave up":
        if (folder := unended_attempt(run, request.first_attempt)) is not None:
            write_end(folder, End("failed", outcome.text))  # for who looks at the run later
        return _say_failed(why_unusable(run) or outcome.text, run, console)
    if not request.trains:
        return DONE
    ended = end_of_last_attempt(run)
    if ended.why == "wrong input":
        raise UserError(ended.message)
    if ended.why == "failed":
        return _say_failed(ended.message, run, console)
    if ended.why == "stopped":
        run.stop_file.unlink(missing_ok=True)  # it is obeyed
        console.print("Stopped on request, with a checkpoint. The same command goes on.")
        return STOPPED
    return DONE


def _say_failed(why: str, run: RunFolder, console: Console) -> int:
    console.print(styled("[red]The training cannot go on:[/] {}", shortened(why, _MAX_REASON_CHARS)))
    for what, path in (("The workers' logs", run.attempts), ("Ray's log", run.ray_log)):
        if path.exists():
            console.print(f"{what}: {path}", highlight=False, soft_wrap=True)
    return FAILED


def _show_result(job: JobConfig, run: RunFolder, console: Console) -> int:
    report = write_report(run)
    records = read_run(run)
    for metric in metrics_of(records.evaluations):
        console.print(score_table(records.evaluations, metric))
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
