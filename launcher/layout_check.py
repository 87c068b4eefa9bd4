"""How a job's examples will be laid before its model, or why it cannot be trained: said before a machine is held.

It is tried on a tiny model in a process of its own, for `sft plan` does without torch; what was found is kept beside
the token stores, by the content of the model's config and the versions of what computes.
"""

import hashlib
import json
import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from sft.atomic_files import read_json, write_json
from sft.config import SftConfig
from sft.errors import UserError
from sft.sizing.model_config import read_model_config

_TIMEOUT_SECONDS = 120
_COMPUTES = ("torch", "transformers")


def find_layout(config: SftConfig) -> dict[str, Any]:
    """`{"layout": …, "reason": …}`; the layout is None where it cannot be found out here.

    Raises:
        UserError: the model is not right in the layout that `train.packing` asks for.
    """
    try:
        content, _folder = read_model_config(config.model.path)
    except UserError:
        # Said elsewhere: with the model's size, or where it is loaded.
        return {"layout": None, "reason": "the model's config.json is not on this machine"}
    try:
        versions = [version(name) for name in _COMPUTES]
    except PackageNotFoundError as error:
        return {"layout": None, "reason": f"{error.name} is not installed here"}
    model, asked = config.model, [config.train.packing, config.data.max_len_tokens]
    kept = _kept(config, [content, model.dropout, model.trust_remote_code, asked, versions])
    answer: dict[str, Any] = read_json(kept) if kept.is_file() else _ask(config)
    if answer["layout"] is not None and kept.parents[1].is_dir():
        write_json(kept, answer)
    if "error" in answer:
        raise UserError(answer["error"])
    return answer


def _kept(config: SftConfig, known_by: list[Any]) -> Path:
    name = hashlib.sha256(json.dumps(known_by, sort_keys=True).encode()).hexdigest()[:16]
    return config.data.cache_dir.expanduser() / "layouts" / f"{name}.json"


def _ask(config: SftConfig) -> dict[str, Any]:
    asked = {
        "model": config.model.model_dump(mode="json"),
        "packing": config.train.packing,
        "max_len_tokens": config.data.max_len_tokens,
    }
    command = [sys.executable, "-m", "sft.model.layout"]
    # Nothing is downloaded to plan.
    options: dict[str, Any] = {"env": {**os.environ, "HF_HUB_OFFLINE": "1"}, "timeout": _TIMEOUT_SECONDS}
    try:
        run = subprocess.run(command, input=json.dumps(asked), capture_output=True, text=True, check=True, **options)
        answer: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    except (subprocess.SubprocessError, ValueError, IndexError) as error:
        # Nothing is known, and nothing is lost: the run tries it at its start.
        return {"layout": None, "reason": f"trying it failed: {error}"}
    return {"layout": "refused", **answer}
