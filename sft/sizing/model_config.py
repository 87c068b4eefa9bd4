"""Finds a model's config.json without a network: in a folder, or in the local cache of the Hub."""

from pathlib import Path
from typing import Any

from huggingface_hub import try_to_load_from_cache
from huggingface_hub.errors import HFValidationError

from sft.absolute_paths import near_it
from sft.errors import UserError
from sft.model_sizes import check_sizes
from sft.small_files import read_small_json


def read_model_config(path: str) -> tuple[dict[str, Any], Path]:
    """The content of the config.json of the model at `path`, and its folder.

    Args:
        path: a folder, a config.json itself, or the id of a model on the Hub.

    Raises:
        UserError: there is none on this machine, or it cannot be read.
    """
    file = _find(path)
    content = read_small_json(file, "the model's config")
    if not isinstance(content, dict):
        raise UserError(f"model.path: {file} is not the config of a model")
    check_sizes(content, file)
    return content, file.parent


def _find(path: str) -> Path:
    local = Path(path).expanduser()
    if local.is_file():
        return local
    if (local / "config.json").is_file():
        return local / "config.json"
    if local.is_dir():
        raise UserError(f"model.path: {local} has no config.json")
    try:
        cached = try_to_load_from_cache(path, "config.json")
    except HFValidationError:
        hint = near_it(local)
        raise UserError(f"model.path: there is no folder {local}{hint}. Correct it, or name a Hub id.") from None
    if isinstance(cached, str):
        return Path(cached)
    raise UserError(
        f"model.path: the config.json of {path} is not on this machine. Memory, time and disk are computed from it. "
        f"Fetch it (a few kB) with `hf download {path} config.json`; `sft plan` does so too if the Hub answers. Or "
        "name a folder that holds it (model.path=FOLDER)."
    )
