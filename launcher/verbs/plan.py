"""`sft plan`: shows what a job will ask for, need and cost."""

import argparse
import json
import sys

from sft.config_arguments import add_config_arguments

SUMMARY = "show what the job will ask for, need and cost; starts nothing, and needs neither torch nor a GPU"
EXAMPLES = """\
sft plan configs/quickstart.yaml
sft plan my.yaml cluster.workers=16 cluster.gpu=h100-80gb    # the plan with other settings
sft plan my.yaml --json > plan.json"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Its own and those of a config."""
    add_config_arguments(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    text = "do not fetch the config.json (a few kB) of a model that is only on the Hub"
    parser.add_argument("--offline", action="store_true", help=text)


def run(options: argparse.Namespace) -> int:
    """Print it."""
    from launcher.console import build_console, fit_for_json
    from launcher.exit_codes import DONE
    from launcher.layout_check import find_layout
    from launcher.plan import forecast_job, layout_note, plan_as_json, plan_job
    from launcher.plan_table import plan_table
    from sft.absolute_paths import absolute_paths
    from sft.sizing.hub_config import fetch_config

    job = options.job.model_copy(update={"sft": absolute_paths(options.job.sft)})
    fetched = None if options.offline else fetch_config(job.sft.model.path)
    forecast = forecast_job(job)
    plan = plan_job(job, [stage.packs_per_micro_batch for stage in forecast.stages])
    layout = find_layout(job.sft)
    notes = (fetched, *forecast.findings, *layout["notes"], layout_note(layout, forecast))
    forecast = forecast._replace(findings=tuple(note for note in notes if note is not None))
    if options.json:
        sys.stdout.write(json.dumps(fit_for_json(plan_as_json(plan, forecast))) + "\n")
    else:
        build_console().print(plan_table(plan, forecast))
    return DONE
