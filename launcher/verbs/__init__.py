"""The verbs of the command `sft`, a module each: its arguments, and what it does.

A new verb is a module here, and its name in `VERBS`. The modules import nothing slow at their top, because listing the
verbs imports all of them. A verb imports what it needs when it is called. By then its config has been read, so all
problems of the config are reported before the slow imports.
"""

import argparse
import re
from importlib import import_module
from typing import Protocol, cast

VERBS = (
    "init",
    "convert",
    "review",
    "plan",
    "prepare",
    "construct",
    "inspect",
    "score",
    "preflight",
    "train",
    "submit slurm",
    "submit ray",
    "status",
    "evaluate",
    "chat",
    "export",
    "report",
    "verify",
    "config-schema",
)
"""In the order of use. A dash or a space is an underscore in the module's name."""

GROUPS = {"submit": "hand the job to a cluster, where it trains"}
"""First word of a verb of two words → what the verbs that begin with it do."""


class Verb(Protocol):
    """A module of this package."""

    SUMMARY: str
    """What it does: a line that begins with a small letter and has no full stop."""
    EXAMPLES: str
    """Commands that people can copy, a line each."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the verb's arguments; those of a config by `sft.config_arguments`."""

    def run(self, options: argparse.Namespace) -> int:
        """Run the verb; returns the exit code. `options.job` is the `JobConfig` of a verb that takes a config.

        Raises:
            UserError: a problem that the user can correct.
        """


def find_verb(name: str) -> Verb:
    """The module of a verb in `VERBS`."""
    return cast(Verb, import_module(f"{__name__}.{re.sub('[ -]', '_', name)}"))
