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
    """Write it, and print where it is; on a terminal, with the tables of what was learned."""
    from launcher.console import build_console
    from launcher.exit_codes import DONE
    from launcher.opened_run import open_run
    from launcher.results import show_results
    from sft.evaluation.report import write_report
    from sft.evaluation.run_records import read_run

    run = open_run(options.run_dir)
    records = read_run(run)
    report = write_report(run, records)
    if sys.stdout.isatty():  # a script gets the path alone
        show_results(records.evaluations, records.scores, records.clusters, build_console())
    sys.stdout.write(f"{report}\n")
    return DONE
