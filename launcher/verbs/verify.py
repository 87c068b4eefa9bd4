"""`sft verify`: proves what a run trained, and that its files are intact."""

import argparse

from launcher.run_argument import add_run_argument

SUMMARY = "hash all files again and prove that each pack was trained once; exit code 1 if not"
EXAMPLES = "sft verify runs/quickstart"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The run."""
    add_run_argument(parser)


def run(options: argparse.Namespace) -> int:
    """Verify, and show what was found."""
    from launcher.console import build_console
    from launcher.exit_codes import DONE, FAILED
    from launcher.opened_run import open_run
    from launcher.verification import verify

    return DONE if verify(open_run(options.run_dir), build_console()) else FAILED
