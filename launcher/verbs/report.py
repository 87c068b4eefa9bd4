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
    from launcher.opened_run import open_run
    from sft.evaluation.report import write_report

    sys.stdout.write(f"{write_report(open_run(options.run_dir))}\n")
    return DONE
