"""What the shell offers when a command is half written: verbs, options, files, and the fields of a config.

For bash, zsh and fish, by argcomplete, where that is installed:

    pip install 'sft[completion]'
    eval "$(register-python-argcomplete sft)"      # into ~/.bashrc or ~/.zshrc
"""

import argparse
import os
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from typing import Any, get_args, get_origin


def complete(parser: argparse.ArgumentParser, **options: Any) -> None:
    """Answer the shell and exit, if the shell called the command for completion.

    Args:
        parser: of all verbs.
        options: see `argcomplete.autocomplete`.
    """
    if "_ARGCOMPLETE" not in os.environ or find_spec("argcomplete") is None:
        return
    import argcomplete  # noqa: PLC0415  (an optional package)
    from argcomplete.completers import BaseCompleter, FilesCompleter  # noqa: PLC0415  (the same)

    files = FilesCompleter()

    class Offer(BaseCompleter):
        def __call__(self, *, prefix: str, action: argparse.Action, **about: Any) -> Iterable[str]:
            if action.dest == "overrides":
                return [path for path in field_paths() if path.startswith(prefix)]
            found: Iterable[str] = files(prefix)
            return found

    argcomplete.autocomplete(parser, default_completer=Offer(), append_space=False, **options)


def field_paths() -> Iterator[str]:
    """`section.field=` for every field, except those of list items."""
    from sft.job_config import JobFile  # noqa: PLC0415  (pydantic: only where fields are asked for)

    yield from _paths("", JobFile)


def _paths(path: str, kind: Any) -> Iterator[str]:
    """The paths of a section, also an optional one; else the path itself."""
    section = next((part for part in (kind, *get_args(kind)) if hasattr(part, "model_fields")), None)
    if section is None or get_origin(kind) in (tuple, dict):
        yield f"{path.rstrip('.')}="
        return
    for name, field in section.model_fields.items():
        yield from _paths(f"{path}{field.alias or name}.", field.annotation)
