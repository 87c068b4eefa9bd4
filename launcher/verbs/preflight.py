"""`sft preflight`: looks at the nodes of a job before it is started."""

import argparse
import json
import sys

from sft.config_arguments import add_config_arguments

SUMMARY = "check every node of the cluster and list all problems; exit code 2 if a job could not start"
EXAMPLES = """\
RAY_ADDRESS=HEAD_NODE:6379 sft preflight my.yaml
sft preflight my.yaml --json     # this machine alone, if RAY_ADDRESS names no cluster"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Its own and those of a config."""
    add_config_arguments(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")


def run(options: argparse.Namespace) -> int:
    """Look, and show what was seen."""
    from launcher.console import build_console, fit_for_json
    from launcher.exit_codes import DONE, WRONG_INPUT
    from launcher.preflight.checks import check
    from launcher.preflight.table import as_json, show
    from sft.absolute_paths import absolute_paths

    job = options.job
    preflight = check(job.model_copy(update={"sft": absolute_paths(job.sft)}))
    if options.json:
        sys.stdout.write(json.dumps(fit_for_json(as_json(preflight))) + "\n")
    else:
        show(preflight, build_console())
    return WRONG_INPUT if preflight.errors else DONE
