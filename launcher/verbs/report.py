"""`sft report`: writes the page of a run."""

import argparse
import sys

from launcher.run_argument import add_run_argument

SUMMARY = "write one self-contained HTML page with tables and plots, also for a run under way"
EXAMPLES = "sft report runs/quickstart"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The run."""
    add_run_argument(parser)


def run(options: argparse.Namespace) -> int:
    """Write it, and print where it is."""
    from launcher.exit_codes import DONE
    from sft.errors import UserError
    from sft.evaluation.report import write_report
    from sft.run_claim import is_claimed
    from sft.run_folder import RunFolder

    run = RunFolder(options.run_dir)
    # Other programs use this file name too, and this verb writes a file.
    if not is_claimed(run):
        raise UserError(f"{run.path} is not the folder of a run: there is no {run.manifest.name} of a run in it")
    sys.stdout.write(f"{write_report(run)}\n")
    return DONE
