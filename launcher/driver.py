"""Runs a job: opens its run folder, checks model and nodes, and does the rest with signals and the lock in hand.

Called again on the same run folder, it goes on where the last call ended, however that call ended. What takes seconds
goes on at the same time: the look at the model, the import of what prepares and trains (torch above all), and the start
of the process that speaks to Ray. What a check refuses, ends them.
"""

import os
from collections.abc import Sequence
from contextlib import closing, nullcontext

from rich.console import Console

from launcher.cluster.trainer_process import TrainerProcess
from launcher.exit_codes import DONE, FAILED, STOPPED
from launcher.held_run import work_in
from launcher.layout_check import looking_for_layout
from launcher.preflight.start import pass_preflight
from sft.errors import UserError
from sft.hub_answers import check_hub_answers
from sft.job_config import JobConfig
from sft.model.weight_values import check_values
from sft.monitoring.alerts import Kind, alerts_posted
from sft.paused_collector import paused_collector
from sft.run_folder import RunFolder
from sft.sinks.table import check_sinks
from sft.training.attempt_end import end_of_last_attempt
from sft.training.run_record import is_extended

_ALERTS: dict[int, Kind] = {DONE: "finished", FAILED: "failed", STOPPED: "stopped"}


def train(job: JobConfig, console: Console, until: str | None = None) -> int:
    """Train every stage that is not finished, and report; returns the exit code.

    Args:
        job: the whole job, even if only a part of it is trained; its local paths are absolute.
        console: where it is shown.
        until: the last stage to train now. Default: all.

    Raises:
        UserError: config, data or model cannot be used; found before any worker starts where possible.
    """
    until = until or job.sft.stages[-1].name
    names = [stage.name for stage in job.sft.stages]
    if until not in names:
        raise UserError(f"--until {until}: the config has no such stage. It has: {', '.join(names)}.")
    check_sinks(job.sft.logging)
    check_hub_answers(job.sft)
    now, run = names[: names.index(until) + 1], RunFolder(job.sft.run.dir)
    with nullcontext() if run.has_finished(now) else closing(_start_early(job, run)) as early:
        with looking_for_layout(job.sft, is_whole=True) as layout:
            with paused_collector():
                import launcher.job_run  # noqa: F401, PLC0415  (seconds: the tokenizer's library imports torch)
            for note in layout()["notes"]:
                console.print(note, highlight=False, markup=False)
        return work_in(run, lambda: _train_and_tell(job, now, console, early), console, is_training=True)


def _start_early(job: JobConfig, run: RunFolder) -> TrainerProcess:
    """Where the data was prepared before, the workers are near: then a Ray of our own starts too. It holds nothing."""
    is_near = run.config.is_file() and not os.environ.get("RAY_ADDRESS")
    return TrainerProcess(job=job if is_near else None)


def _train_and_tell(job: JobConfig, names: Sequence[str], console: Console, early: TrainerProcess | None) -> int:
    run = RunFolder(job.sft.run.dir)
    with alerts_posted(job.sft.alerts, run, job.sft.run.name) as post_end:
        before = run.latest_attempt()
        code = _train(job, names, console, early)
        if code != DONE or run.latest_attempt() > before:  # else there was nothing to train
            post_end(_ALERTS[code], end_of_last_attempt(run).message)
        return code


def _train(job: JobConfig, names: Sequence[str], console: Console, early: TrainerProcess | None) -> int:
    run = RunFolder(job.sft.run.dir)
    if not run.latest_attempt():
        check_values(job.sft.model.path)  # a run that has begun has trained on them
    if job.cluster.preflight and (is_extended(job.sft) or not run.has_finished(names)):
        pass_preflight(job, console)
    from launcher.job_run import run_job  # noqa: PLC0415  (see above)

    return run_job(job, names, console, early)
