"""Runs a command in a run folder: checks and locks the folder, obeys signals and, in a training, the file STOP."""

from collections.abc import Callable

from rich.console import Console

from launcher.console import end_at_once
from launcher.interruption import EndRequested, ended_on_request
from sft.atomic_files import now_on_file_system
from sft.run_claim import check_run_folder
from sft.run_folder import RunFolder
from sft.run_lock import run_lock
from sft.training.control_signals import remove_stale_stop


def work_in(run: RunFolder, work: Callable[[], int], console: Console, is_training: bool) -> int:
    """Work until the work has ended or is asked to end; returns the exit code.

    Args:
        run: the folder.
        work: returns the exit code.
        console: where notes are printed.
        is_training: whether the file STOP is meant for this work; if not, the file stays as it is.

    Raises:
        UserError: the folder is not a run's, cannot be written, or another job works in it.
    """
    for note in check_run_folder(run):
        console.print(note, highlight=False, markup=False)
    try:
        with run_lock(run.lock, end_at_once, console.print):
            if is_training:
                remove_stale_stop(run.stop_file, now_on_file_system(run.path), console.print)
            with ended_on_request(run.stop_file if is_training else None):
                return work()
    except EndRequested as request:
        if request.number is None:
            run.stop_file.unlink(missing_ok=True)
        console.print(request.in_words)
        return request.exit_code
