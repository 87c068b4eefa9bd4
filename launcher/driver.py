"""Runs a job: opens its run folder, looks at model and nodes, and has the rest done with signals and the lock in hand.

Called again on the same run folder it goes on where the last call ended, however that was. What only the preparation
and the training need, torch above all, is imported behind what is looked at here.
"""

from collections.abc import Sequence

from rich.console import Console

from launcher.console import end_at_once
from launcher.exit_codes import STOPPED
from launcher.interruption import InterruptedByWish, ended_on_wish
from launcher.layout_check import find_layout
from launcher.preflight.start import pass_preflight
from sft.atomic_files import now_on_file_system
from sft.errors import UserError
from sft.job_config import JobConfig
from sft.model.weight_values import check_values
from sft.run_claim import check_run_folder
from sft.run_folder import RunFolder
from sft.run_lock import run_lock
from sft.training.run_record import is_extended
from sft.training.wishes import forget_old_stop


def train(job: JobConfig, console: Console, until: str | None = None) -> int:
    """Train every stage that is not finished, and report; returns the exit code.

    Args:
        job: the whole job, also where only a part of it is trained; its local paths are absolute.
        console: where it is shown.
        until: the last stage to train now. Default: all.

    Raises:
        UserError: config, data or model cannot be used; said before any worker starts where it can be.
    """
    until = until or job.sft.stages[-1].name
    names = [stage.name for stage in job.sft.stages]
    if until not in names:
        raise UserError(f"--until {until}: the config has no such stage. It has: {', '.join(names)}.")
    for note in find_layout(job.sft, is_whole=True)["notes"]:
        console.print(note, highlight=False, markup=False)
    run = RunFolder(job.sft.run.dir)
    for note in check_run_folder(run):
        console.print(note, highlight=False, markup=False)
    try:
        with run_lock(run.lock, end_at_once, console.print):
            forget_old_stop(run.stop_file, now_on_file_system(run.path), console.print)
            with ended_on_wish(run.stop_file):
                return _train(job, names[: names.index(until) + 1], console)
    except InterruptedByWish as wish:
        if wish.number is None:
            run.stop_file.unlink(missing_ok=True)
        console.print(f"Ended by {wish}; no step is lost by it. The same command goes on.")
        return STOPPED if wish.number is None else 128 + wish.number


def _train(job: JobConfig, names: Sequence[str], console: Console) -> int:
    run = RunFolder(job.sft.run.dir)
    if not run.latest_attempt():
        check_values(job.sft.model.path)  # a run that has begun has trained on them
    if job.cluster.preflight and (is_extended(job.sft) or not run.has_finished(names)):
        pass_preflight(job, console)
    from launcher.job_run import run_job  # noqa: PLC0415  (seconds, for the tokenizer's library imports torch)

    return run_job(job, names, console)
