"""`sft construct`: has a teacher make records for the tasks that are rare, and writes what is kept."""

import argparse

from sft.config_arguments import add_config_arguments

SUMMARY = "have a strong model make more records of rare tasks; each request is paid once"
EXAMPLES = """\
sft construct my.yaml
sft construct my.yaml construct.budget.requests=100     # a first look at what comes
sft construct my.yaml construct.teacher.at_once=64"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Those of a config."""
    add_config_arguments(parser)


def run(options: argparse.Namespace) -> int:
    """Make what is not made yet."""
    from sft.errors import UserError

    if options.job.construct_ is None:
        raise UserError(f"{options.config}: needs a section `construct`: see docs/CONSTRUCTION.md.")
    from launcher.console import build_console
    from launcher.construction import construct
    from sft.absolute_paths import absolute_paths
    from sft.hub_answers import check_hub_answers

    config = absolute_paths(options.job.sft)
    check_hub_answers(config)
    job = options.job.model_copy(update={"sft": config})
    return construct(job, options.job.construct_, build_console())
