"""Starts a module of this program in a new process, which imports from the same folders as this one.

`python -m` alone would look into the working folder first, where a user may have a folder `sft/` or `tokenizers/`.
"""

import os
import sys


def own_module(name: str, *arguments: str) -> list[str]:
    """The command that runs a module; it needs `own_environment`."""
    return [sys.executable, "-P", "-m", name, *arguments]


def own_environment(**more: str) -> dict[str, str]:
    """The environment variables of this process, with its import folders, and the given ones."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path), **more}
