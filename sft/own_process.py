"""Starts a module of this program in a process of its own, which imports what this one does.

`python -m` alone would look into the working folder first, where a folder `sft/` or `tokenizers/` may be a user's.
"""

import os
import sys


def own_module(name: str, *arguments: str) -> list[str]:
    """The command that runs a module; it needs `own_environment`."""
    return [sys.executable, "-P", "-m", name, *arguments]


def own_environment(**more: str) -> dict[str, str]:
    """The variables of this process, with the folders that it imports from, and those that are given."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path), **more}
