"""How a module of this program is run in a process of its own."""

import os
import sys


def module_command(module: str, *arguments: str) -> tuple[list[str], dict[str, str]]:
    """The command and its environment.

    It is as safe from what lies in the working folder as this process is: no folder is put before those that it has.
    """
    path = os.pathsep.join(folder for folder in sys.path if folder)
    return [sys.executable, "-P", "-m", module, *arguments], {**os.environ, "PYTHONPATH": path}
