"""`sft status`: shows what a run is doing."""

import argparse
import json
import sys

from launcher.run_argument import add_run_argument

SUMMARY = "show what a run is doing, from any machine that sees its folder"
EXAMPLES = """\
sft status runs/quickstart
sft status runs/quickstart --watch"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The run and how it is shown."""
    add_run_argument(parser)
    parser.add_argument("--watch", action="store_true", help="keep showing it until the run has ended")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")


def run(options: argparse.Namespace) -> int:
    """Show it."""
    from dataclasses import asdict

    from launcher import status
    from launcher.console import build_console, fit_for_json
    from launcher.exit_codes import DONE
    from launcher.opened_run import open_run
    from sft.monitoring.run_status import RunWatcher

    watcher = RunWatcher(open_run(options.run_dir))
    if options.json:
        sys.stdout.write(json.dumps(fit_for_json(asdict(watcher.read()))) + "\n")
    elif options.watch:
        status.watch(watcher, build_console())
    else:
        status.show(watcher, build_console())
    return DONE
