"""A command that works in a run folder: the folder is looked at and held, and signals and the file STOP are obeyed."""

from collections.abc import Callable

from rich.console import Console

from launcher.console import end_at_once
from launcher.interruption import InterruptedByWish, ended_on_wish
from sft.atomic_files import now_on_file_system
from sft.run_claim import check_run_folder
from sft.run_folder import RunFolder
from sft.run_lock import run_lock
from sft.training.wishes import forget_old_stop


def work_in(run: RunFolder, work: Callable[[], int], console: Console) -> int:
    """Work until that has ended, or is wished to end; returns the exit code.

    Raises:
        UserError: the folder is not a run's, cannot be written, or another job works in it.
    """
    for note in check_run_folder(run):
        console.print(note, highlight=False, markup=False)
    try:
        with run_lock(run.lock, end_at_once, console.print):
            forget_old_stop(run.stop_file, now_on_file_system(run.path), console.print)
            with ended_on_wish(run.stop_file):
                return work()
    except InterruptedByWish as wish:
        if wish.number is None:
            run.stop_file.unlink(missing_ok=True)
        console.print(f"Ended by {wish}; no step is lost by it. The same command goes on.")
        return wish.exit_code
