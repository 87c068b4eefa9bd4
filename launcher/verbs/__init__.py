"""The verbs of the command `sft`, a module each: its arguments, and what it does.

A new one is a module here, and its name in `VERBS`. At their top the modules import nothing slow, for all of them are
imported to list the verbs. What a verb needs is imported when it is called, and by then the config, if it takes one,
has been read: all that is wrong with it is said before the slow imports.
"""

import argparse
import re
from importlib import import_module
from typing import Protocol, cast

VERBS = (
    "init",
    "convert",
    "plan",
    "prepare",
    "inspect",
    "preflight",
    "train",
    "submit slurm",
    "submit ray",
    "status",
    "report",
    "verify",
    "config-schema",
)
"""In the order in which they are used. A dash or a space is an underscore in the module's name."""

GROUPS = {"submit": "hand the job to a cluster, where it trains"}
"""What the verbs of two words that begin with one have in common."""


class Verb(Protocol):
    """A module of this package."""

    SUMMARY: str
    """What it does: a line that begins with a small letter and has no full stop."""
    EXAMPLES: str
    """Commands that people can copy, a line each."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add them; those of a config by `sft.config_arguments`."""

    def run(self, options: argparse.Namespace) -> int:
        """Do it; returns the exit code. `options.job` is the `JobConfig` of a verb that takes a config.

        Raises:
            UserError: something that the user can put right.
        """


def find_verb(name: str) -> Verb:
    """The module of a verb in `VERBS`."""
    return cast(Verb, import_module(f"{__name__}.{re.sub('[ -]', '_', name)}"))
