"""The arguments of every command that reads a job. Imports nothing slow, so that `--help` is quick."""

import argparse
from collections.abc import Callable
from pathlib import Path


def add_config_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of every command that reads a job: `config`, and what `overrides_of` reads."""
    parser.add_argument("config", type=Path, metavar="CONFIG", help="a YAML file, such as configs/quickstart.yaml")
    add_override_arguments(parser)


def add_override_arguments(parser: argparse.ArgumentParser) -> None:
    """Those behind `config`, for a command whose `config` is more than a file."""
    text = "section.field=value, such as train.packs_per_step=16 or stages.broad.optimizer.lr=1e-5"
    # Without a default, argparse would count them among the arguments that are required.
    parser.add_argument("overrides", nargs="*", default=[], metavar="FIELD=VALUE", help=text)
    text = "also train on made records that nobody has approved: data.unreviewed=true"
    parser.add_argument("--unreviewed", action="store_true", help=text)


def overrides_of(options: argparse.Namespace) -> list[str]:
    """The overrides that these arguments mean (see `sft.job_config.load_job`)."""
    return [*options.overrides, *(["data.unreviewed=true"] if options.unreviewed else [])]


def at_least(least: int) -> Callable[[str], int]:
    """The type of an argument: a whole number, not less than this."""

    def number(text: str) -> int:
        value = int(text)
        if value < least:
            raise argparse.ArgumentTypeError(f"{value} is less than {least}")
        return value

    return number
