"""`sft submit slurm`: queues a job in Slurm."""

import argparse

from sft.config_arguments import add_config_arguments

SUMMARY = "queue the job in Slurm, on nodes of its own"
EXAMPLES = """\
sft submit slurm my.yaml --dry-run > my.sbatch
sft submit slurm my.yaml slurm.time_limit_minutes=720"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Its own and those of a config."""
    add_config_arguments(parser)
    parser.add_argument("--dry-run", action="store_true", help="print what would be submitted, and do nothing")


def run(options: argparse.Namespace) -> int:
    """Queue it, or print the script."""
    from launcher.console import build_console
    from launcher.exit_codes import DONE
    from launcher.submission.slurm import submit

    submit(options.job, str(options.config), options.dry_run, build_console())
    return DONE
