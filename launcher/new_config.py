"""Writes a new config: overwrites a file only if asked to, and reads the new file at once.

Questions are asked only on a terminal, and an option can answer each of them instead.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from rich.prompt import Confirm, Prompt

from launcher.console import FitConsole
from sft.atomic_files import write_text
from sft.errors import UserError
from sft.job_config import load_job


class Questions:
    """Questions for the user; `are_asked` is False off a terminal, and if the user wants none."""

    def __init__(self, console: FitConsole, without: bool) -> None:
        """`without`: the user wants none."""
        self._console = console
        self.are_asked = not without and sys.stdin.isatty() and sys.stdout.isatty()

    def ask(self, question: str, default: str = "", choices: Sequence[str] = ()) -> str:
        """The answer; the default without asking where nothing is asked."""
        if not self.are_asked:
            return default
        return Prompt.ask(
            question, console=self._console, choices=list(choices) or None, default=default, show_default=bool(default)
        )

    def confirm(self, question: str) -> bool:
        """Whether the user says yes; no, where nothing is asked."""
        return self.are_asked and Confirm.ask(question, console=self._console, default=False)


def check_is_new(path: Path, may_replace: bool, questions: Questions) -> None:
    """Refuse to overwrite a file.

    Raises:
        UserError: it is there, and the user has not allowed replacing it.
    """
    if path.exists() and not may_replace and not questions.confirm(f"{path} is there already. Replace it?"):
        raise UserError(f"{path} is there already, and is not overwritten: give another name (-o FILE), or --force")


def write_config(path: Path, text: str) -> None:
    """Write a config and read it.

    Raises:
        UserError: it cannot be written, or it has problems; then the file stays, to be corrected.
    """
    try:
        write_text(path, text)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror or error}") from error
    load_job(path)
