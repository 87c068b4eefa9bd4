"""`sft train`: prepares, trains every stage, and reports."""

import argparse
from typing import Any

from sft.config_arguments import add_config_arguments

SUMMARY = "prepare, train every stage, export and report; the same command resumes"
EXAMPLES = """\
sft train configs/quickstart.yaml
sft train my.yaml cluster.workers=2 run.dir=runs/two     # with other settings
sft train my.yaml --until broad                          # up to the end of the stage `broad`"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Its own and those of a config."""
    add_config_arguments(parser)
    parser.add_argument("--until", metavar="STAGE", help="the last stage to train now; default: all")
    # For `sft submit ray`. It is checked before the config is read, because the config may be for another program.
    parser.add_argument("--expect-source", metavar="HASH", action=_SameSource, help=argparse.SUPPRESS)


def run(options: argparse.Namespace) -> int:
    """Say which run it is, and train."""
    from launcher.console import build_console
    from sft.absolute_paths import absolute_paths
    from sft.guarded_output import going_on_without_output

    job = options.job.model_copy(update={"sft": absolute_paths(options.job.sft)})
    console = build_console()
    with going_on_without_output():
        console.print(f"run {job.sft.run.name}, in {job.sft.run.dir}", soft_wrap=True)
        from launcher.driver import train

        return train(job, console, options.until)


class _SameSource(argparse.Action):
    """An action, because argparse rewords the errors of a `type`."""

    def __call__(self, parser: argparse.ArgumentParser, options: argparse.Namespace, value: Any, *_: Any) -> None:
        from launcher.submission.portable_job import check_source

        check_source(value)
