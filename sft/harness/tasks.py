"""Which tasks of lm-evaluation-harness are asked, and how; and what tells two ways of asking apart."""

from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from sft.absolute_paths import local_path, near_it
from sft.atomic_files import fingerprint
from sft.config import SftConfig
from sft.errors import UserError

_PACKAGE = "lm_eval"
_COMPUTES = (_PACKAGE, "transformers", "torch", "datasets")
"""The packages of which another version may give other results."""


class HarnessTasks(NamedTuple):
    """What is asked."""

    terms: tuple[str, ...]
    """Names of tasks, groups and tags, patterns such as `arc_*`, and folders: all tasks in them."""
    include: tuple[str, ...] = ()
    """Folders with tasks of the user's, whose names may be among the terms."""
    limit: int | None = None
    """The most examples of each task."""
    shots: int | None = None
    """Examples in front of each prompt; None: as each task says."""


def read_tasks(text: str, include: str | None, limit: int | None, shots: int | None) -> HarnessTasks:
    """The tasks that the command line names.

    Raises:
        UserError: a folder is missing, a number is wrong, nothing is named, or the harness is not installed.
    """
    terms = [term.strip() for term in text.split(",") if term.strip()]
    if not terms:
        raise UserError("--harness: name tasks, such as --harness arc_easy,hellaswag, or a folder, such as ./my_tasks")
    if limit is not None and limit < 1:
        raise UserError(f"--harness-limit {limit}: it is the most examples of each task: give 1 or more")
    if shots is not None and shots < 0:
        raise UserError(f"--harness-shots {shots}: it is a number of examples: give 0 or more")
    if find_spec(_PACKAGE) is None:
        raise UserError(
            "--harness: lm-evaluation-harness is not installed here. Install it with `pip install 'sft[harness]'`."
        )
    named = [str(_folder("--harness", term)) if "/" in term or term.startswith((".", "~")) else term for term in terms]
    folders = [str(_folder("--harness-include", include))] if include else []
    folders += [term for term in named if "/" in term]
    return HarnessTasks(tuple(dict.fromkeys(named)), tuple(dict.fromkeys(folders)), limit, shots)


def identity_of(tasks: HarnessTasks, config: SftConfig, template: str) -> dict[str, Any]:
    """What results depend on besides the model and the task: files of one identity are not measured again.

    Args:
        tasks: what is asked.
        config: the run's.
        template: the chat template that prompts are written with.
    """
    return {
        "versions": {name: version(name) for name in _COMPUTES},
        "limit": tasks.limit,
        "shots": tasks.shots,
        "shots_as": config.evaluate.shots_as,
        "dtype": config.model.dtype,
        "template": fingerprint(template),
        "include": [_files_in(Path(folder)) for folder in tasks.include],
    }


def _folder(option: str, given: str) -> Path:
    path = local_path(given)
    if not path.is_dir():
        raise UserError(f"{option}: there is no folder {path}{near_it(path)}. Name a folder with task files (.yaml).")
    if not any(path.rglob("*.yaml")):
        raise UserError(f"{option}: {path} holds no task file (.yaml). Name the folder that does.")
    if broken := [*filter(None, map(_broken, sorted(path.rglob("*.yaml"))))]:
        raise UserError("\n".join(f"{option}: {words}" for words in broken))
    return path


def _broken(path: Path) -> str:
    """Why a task file cannot be read: the harness would leave it out and go on. Empty if it can."""
    try:
        # Its nodes only: what `!function` names is imported by the harness.
        yaml.compose(path.read_text(encoding="utf-8"), yaml.SafeLoader)
    except (yaml.YAMLError, OSError, ValueError, RecursionError) as error:
        return f"{path} is no YAML: {' '.join(str(error).split())}"
    return ""


def _files_in(folder: Path) -> str:
    """Identifies what is in a folder of tasks: their files, code and data."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return fingerprint(
        [[str(path.relative_to(folder)), path.stat().st_size, path.stat().st_mtime_ns] for path in files]
    )
