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
from typing import Any, Literal

from huggingface_hub import constants

from sft.config import SftConfig
from sft.errors import UserError

Kind = Literal["model", "dataset"]

RECORD_ENDINGS = (".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".parquet", ".arrow")
"""Endings of files of records, apart from an ending for their compression. No id of a data set has one."""

_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_VARIABLE = re.compile(r"\$(?:(\w+)|\{([^}]*)\})")


def local_path(path: str) -> Path:
    """The absolute path, with `~` and variables as they are here.

    Raises:
        UserError: a variable is not set.
    """
    unset = [name for found in _VARIABLE.finditer(path) if (name := found[1] or found[2]) not in os.environ]
    if unset:
        raise UserError(f"{path}: ${unset[0]} is not set here. Set it, or write the path out.")
    return Path(os.path.expandvars(path)).expanduser().absolute()


def near_it(path: Path) -> str:
    """`; near it: …` if files or folders with similar names lie beside a path that does not exist."""
    beside = os.listdir(path.parent) if path.parent.is_dir() else []
    close = difflib.get_close_matches(path.name, beside, n=3)
    return f"; near it: {', '.join(close)}" if close else ""


def may_be_hub_id(path: str, kind: Kind) -> bool:
    """Whether to ask the Hub for it: nothing here suggests that it is a path (see above)."""
    return _looks_like_id(path, kind) and not _is_slip(path, kind)


def _looks_like_id(path: str, kind: Kind) -> bool:
    is_file = kind == "dataset" and set(Path(path.lower()).suffixes[-2:]) & set(RECORD_ENDINGS)
    return _ID.fullmatch(path) is not None and not is_file and not Path(path).exists()


def _is_slip(path: str, kind: Kind) -> bool:
    owner, slash, _ = path.partition("/")
    cached = Path(constants.HF_HUB_CACHE, f"{kind}s--{path.replace('/', '--')}")
    return bool(slash) and Path(owner).is_dir() and not cached.is_dir()


def absolute_paths(config: SftConfig) -> SftConfig:
    """The config with its local paths absolute: workers run in folders of their own. Ids and URLs stay as they are.

    Raises:
        UserError: names all paths with a variable that is not set, and all mistyped paths that look like an id on the
            Hub.
    """
    model, data, checkpoint, mlflow = config.model, config.data, config.checkpoint, config.logging.mlflow
    given: dict[str, tuple[str, Kind | None]] = {
        "run.dir": (str(config.run.dir), None),
        "model.path": (model.path, "model"),
        "model.tokenizer": (model.tokenizer or "", "model"),
        "model.chat_template": ("" if model.chat_template in (None, "chatml") else str(model.chat_template), None),
        **{f"data.sources.{source.name}.path": (source.path, "dataset") for source in data.sources},
        "data.cache_dir": (str(data.cache_dir), None),
        "checkpoint.dir": (checkpoint.dir or "", None),
        "logging.mlflow.tracking_uri": ((mlflow.folder if mlflow else None) or "", None),
    }
    found: dict[str, str] = {}
    problems = []
    for field, (path, kind) in given.items():
        try:
            found[field] = _absolute(path, kind)
        except UserError as error:
            problems.append(f"{field}: {error}")
    if problems:
        raise UserError("\n".join(problems))

    def changed(section: Any, path: str, names: tuple[str, ...]) -> Any:
        values = {name: found[f"{path}.{name}"] for name in names if found[f"{path}.{name}"]}
        return section.model_copy(update=values)

    sources = tuple(changed(source, f"data.sources.{source.name}", ("path",)) for source in data.sources)
    return config.model_copy(
        update={
            "run": config.run.model_copy(update={"dir": Path(found["run.dir"])}),
            "model": changed(model, "model", ("path", "tokenizer", "chat_template")),
            "data": data.model_copy(update={"sources": sources, "cache_dir": Path(found["data.cache_dir"])}),
            "checkpoint": changed(checkpoint, "checkpoint", ("dir",)),
            "logging": config.logging.model_copy(
                update={"mlflow": mlflow and changed(mlflow, "logging.mlflow", ("tracking_uri",))}
            ),
        }
    )


def _absolute(path: str, kind: Kind | None) -> str:
    if not path or "://" in path:
        return path
    if kind is None or not _looks_like_id(path, kind):
        return str(local_path(path))
    if _is_slip(path, kind):
        here = Path(path).absolute()
        fetch = f"hf download {path}" + (" --repo-type dataset" if kind == "dataset" else "")
        raise UserError(
            f"there is no {here}{near_it(here)}. As {here.parent} is a folder, the Hub is not asked. If you mean "
            f"{path} on the Hub, fetch it: {fetch}"
        )
    return path
