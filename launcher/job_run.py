"""What `sft train` does after its checks: prepares, has the workers train, and shows the results."""

import shlex
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack

from rich.console import Console
from rich.text import Text

from launcher.byproducts import byproduct
from launcher.cluster.trainer_process import Outcome, TrainerProcess, TrainerRequest, samples_are_missing
from launcher.console import styled
from launcher.exit_codes import DONE, FAILED, STOPPED
from launcher.interruption import signals_ask_to_stop
from launcher.plan import JobPlan, plan_job
from launcher.preparation import prepare
from launcher.progress import RunProgress, StageProgress
from launcher.results import show_results
from launcher.supervision import supervise
from sft.attempt_record import End, write_end
from sft.config import SftConfig
from sft.data.planning.pack_plan import PackPlan
from sft.errors import UserError
from sft.evaluation.report import write_report
from sft.evaluation.run_records import RunRecords, read_run
from sft.job_config import JobConfig
from sft.printable import counted, short_name, shortened
from sft.run_folder import RunFolder, StageFolder
from sft.sinks.processes import sinks_fed
from sft.stage_end import read_stage_end
from sft.training.attempt_end import end_of_last_attempt, unended_attempt
from sft.training.run_storage import why_unusable

_MAX_REASON_CHARS = 4000
_MAX_SAMPLE_CHARS = 600


def run_job(job: JobConfig, names: Sequence[str], console: Console, early: TrainerProcess | None = None) -> int:
    """Prepare and train the stages that are not finished; returns the exit code.

    Args:
        job: the whole job.
        names: the stages to train now, the first ones.
        console: where it is shown.
        early: a process that was started early to speak to Ray.

    Raises:
        UserError: config or data cannot be used.
    """
    run = RunFolder(job.sft.run.dir)
    workload, _store, plans = prepare(job.sft, console)
    job = job.model_copy(update={"sft": _first_stages(job.sft, len(names))})
    last = run.stage(len(job.sft.stages) - 1, job.sft.stages[-1].name)
    is_finished = run.has_finished(names)  # asked after `prepare`: a stage with a larger budget is not finished
    if is_finished and not samples_are_missing(job.sft, run, workload):
        console.print("Every stage is finished; nothing is left to train.")
        return _show_result(last, run, console)
    stages = [
        StageProgress(name, _num_steps(run.stage(i, name), stage_plan), run.stage(i, name).metrics)
        for i, (name, stage_plan) in enumerate(zip(names, plans, strict=False))
    ]
    request = TrainerRequest(job, workload, run.latest_attempt() + 1, trains=not is_finished)
    with signals_ask_to_stop(run.stop_file):
        with ExitStack() as shown:
            if request.trains:
                shown.enter_context(RunProgress(stages, run, console))
                shown.enter_context(sinks_fed(job.sft, request.first_attempt))
            outcome = supervise(request, _count(plan_job(job)), console, early)
        exit_code = _say_end(outcome, request, run, console)
    if exit_code != DONE:
        if why_unusable(run) is None:
            with _of_report("The report", run, console):
                write_report(run)
        return exit_code
    return _show_result(last, run, console)


def _num_steps(stage: StageFolder, plan: PackPlan) -> int:
    end = read_stage_end(stage)
    return end.num_steps if end is not None and end.is_early else int(plan.manifest["num_steps"])


def _first_stages(config: SftConfig, num_stages: int) -> SftConfig:
    """The config of the stages that are trained now. Sample answers are written only with the last stage: they need its
    model."""
    if num_stages == len(config.stages):
        return config
    evaluate = config.evaluate.model_copy(update={"sample_answers": 0})
    return config.model_copy(update={"stages": config.stages[:num_stages], "evaluate": evaluate})


def _say_end(outcome: Outcome, request: TrainerRequest, run: RunFolder, console: Console) -> int:
    if outcome.kind == "gave up":
        if (folder := unended_attempt(run, request.first_attempt)) is not None:
            write_end(folder, End("failed", outcome.text))  # for whoever looks at the run later
        is_trained = run.has_finished(stage.name for stage in request.job.sft.stages)
        return _say_failed(why_unusable(run) or outcome.text, run, console, is_trained)
    if not request.trains:
        return DONE
    ended = end_of_last_attempt(run)
    if ended.why == "wrong input":
        raise UserError(ended.message)
    if ended.why == "failed":
        return _say_failed(ended.message, run, console)
    run.stop_file.unlink(missing_ok=True)  # it has been obeyed, or came when all was trained
    if ended.why == "stopped":
        console.print("Stopped on request, with a checkpoint. The same command goes on.")
        return STOPPED
    return DONE


def _say_failed(why: str, run: RunFolder, console: Console, is_trained: bool = False) -> int:
    what = "All is trained, but the sample answers are not written" if is_trained else "The training cannot go on"
    console.print(styled("[red]{}:[/] {}", what, shortened(why, _MAX_REASON_CHARS)))
    for what, path in (("The workers' logs", run.attempts), ("Ray's log", run.ray_log)):
        if path.exists():
            console.print(f"{what}: {path}", highlight=False, soft_wrap=True)
    return FAILED


def _show_result(last: StageFolder, run: RunFolder, console: Console) -> int:
    report = None
    with _of_report("The report", run, console):
        records = read_run(run)
        with _of_report("The page of the report", run, console):
            report = write_report(run, records)
        _show_learned(records, console)
    console.print(f"model   {last.model}", highlight=False, soft_wrap=True)
    end = read_stage_end(last)
    if end is not None and end.has_best_model:
        console.print(f"best    {last.best_model}", highlight=False, soft_wrap=True)
    if report is not None:
        console.print(f"report  {report}", highlight=False, soft_wrap=True)
    return DONE


def _of_report(what: str, run: RunFolder, console: Console) -> AbstractContextManager[None]:
    return byproduct(what, f"sft report {shlex.quote(str(run.path))}", console)


def _show_learned(records: RunRecords, console: Console) -> None:
    show_results(records.evaluations, records.scores, records.clusters, console)
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


def _count(plan: JobPlan) -> str:
    kind = "worker" if plan.gpus else "CPU worker"
    workers = counted(plan.max_workers, kind) if not plan.is_elastic else f"{plan.workers} {kind}s"
    return f"{workers} ({counted(plan.gpus, 'GPU')})" if plan.gpus else workers
