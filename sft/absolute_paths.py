"""Which file or folder a path of the config means on this machine, or whether it is an id on the Hub.

data/a.jsonl        in the working folder, wherever the config is
~/a, $SCRATCH/a     by this user's home and this process's environment
owner/name          an id on the Hub, if nothing of that name is here. If there is a folder `owner` here and the Hub's
                    cache does not know the id, it counts as a mistyped path: nobody waits for the Hub to say that
                    there is no such model.
"""

import difflib
import os
import re
from pathlib import Path

from huggingface_hub import constants

from sft.config import SftConfig
from sft.config_paths import HubKind, named_paths, with_paths
from sft.errors import UserError

RECORD_ENDINGS = (".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".parquet", ".arrow")
"""Endings of files of records, apart from an ending for their compression. No id of a data set has one."""

_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_VARIABLE = re.compile(r"\$(?:(\w+)|\{([^}]*)\})")


def local_path(path: str) -> Path:
    """The absolute path, with `~` and variables as they are here.

    Raises:
        UserError: a variable is not set, or a home folder is not known.
    """
    unset = [name for found in _VARIABLE.finditer(path) if (name := found[1] or found[2]) not in os.environ]
    if unset:
        raise UserError(f"{path}: ${unset[0]} is not set here. Set it, or write the path out.")
    try:
        return Path(os.path.expandvars(path)).expanduser().absolute()
    except RuntimeError:
        raise UserError(f"{path}: this home folder is not known here. Set HOME, or write the path out.") from None


def near_it(path: Path) -> str:
    """`; near it: …` if files or folders with similar names lie beside a path that does not exist."""
    beside = os.listdir(path.parent) if path.parent.is_dir() else []
    close = difflib.get_close_matches(path.name, beside, n=3)
    return f"; near it: {', '.join(close)}" if close else ""


def may_be_hub_id(path: str, kind: HubKind) -> bool:
    """Whether to ask the Hub for it: nothing here suggests that it is a path (see above)."""
    return _looks_like_id(path, kind) and not _is_slip(path, kind)


def how_to_fetch(path: str, kind: HubKind) -> str:
    """The command that brings it from the Hub to this machine."""
    return f"hf download {path}" + (" --repo-type dataset" if kind == "dataset" else "")


def _looks_like_id(path: str, kind: HubKind) -> bool:
    is_file = kind == "dataset" and set(Path(path.lower()).suffixes[-2:]) & set(RECORD_ENDINGS)
    return _ID.fullmatch(path) is not None and not is_file and not Path(path).exists()


def _is_slip(path: str, kind: HubKind) -> bool:
    owner, slash, _ = path.partition("/")
    cached = Path(constants.HF_HUB_CACHE, f"{kind}s--{path.replace('/', '--')}")
    return bool(slash) and Path(owner).is_dir() and not cached.is_dir()


def absolute_paths(config: SftConfig) -> SftConfig:
    """The config with its local paths absolute: workers run in folders of their own. Ids and URLs stay as they are.

    Raises:
        UserError: names all paths with a variable that is not set, and all mistyped paths that look like an id on the
            Hub.
    """
    found, problems = {}, []
    for named in named_paths(config):
        try:
            found[named.keys] = absolute_path(named.path, named.mark.hub)
        except UserError as error:
            problems.append(f"{named.field}: {error}")
    if problems:
        raise UserError("\n".join(problems))
    return with_paths(config, found)


def absolute_path(path: str, kind: HubKind | None) -> str:
    """The absolute path, or the id or URL as it stands; `kind` is what an id may name.

    Raises:
        UserError: a variable is not set, or a mistyped path looks like an id.
    """
    if "://" in path:
        return path
    if kind is None or not _looks_like_id(path, kind):
        return str(local_path(path))
    if _is_slip(path, kind):
        here = Path(path).absolute()
        raise UserError(
            f"there is no {here}{near_it(here)}. As {here.parent} is a folder, the Hub is not asked. If you mean "
            f"{path} on the Hub, fetch it: {how_to_fetch(path, kind)}"
        )
    return path
