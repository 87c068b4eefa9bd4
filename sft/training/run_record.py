"""What a run folder says of its run: the resolved config and the versions. A resumed run must be the same run.

What may change between two starts of a run is how it is run (machines, checkpoints, logging), not what it computes.
"""

import glob
import platform
import re
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from sft.atomic_files import write_json, write_text
from sft.config import CheckpointConfig, SftConfig
from sft.errors import UserError
from sft.run_folder import RunFolder
from sft.url_secrets import hide_secrets

_FREE = {"logging", "evaluate", "deepspeed"}
"""Sections that may be changed when a run is resumed."""

_FREE_FIELDS = {"run.name", "train.micro_packs", "train.activation_checkpointing", "train.logits_chunk_tokens"}
_FREE_FIELDS |= {"train.non_finite", "train.max_skipped_steps"}
# All of it but where they are: at another place there are none, and training would start over.
_FREE_FIELDS |= {f"checkpoint.{name}" for name in CheckpointConfig.model_fields if name not in ("dir", "async_")}
_FREE_FIELDS |= {"checkpoint.async", "data.cache_dir", "data.max_bad_share", "run.dir"}
_FREE_FIELDS |= {"model.trust_remote_code", "model.trust_tokenizer_code"}
_FREE_FIELDS |= {"data.staging", "data.staging_dir"}

_FREE_OF_SOURCES = {"path", "split", "subset", "revision", "format", "columns"}
"""What they lead to is in the fingerprint of the data, to which a stage's plan is held."""

PACKAGES = ("torch", "deepspeed", "transformers", "datasets", "ray", "numpy")
"""What computes beside this program."""


def anchor_paths(config: SftConfig) -> SftConfig:
    """The config with its local paths absolute: workers run in folders of their own. Hub ids stay as they are."""

    def anchored(path: str) -> str:
        local = Path(path).expanduser()
        is_pattern = glob.has_magic(path) and "://" not in path
        return str(local.absolute()) if is_pattern or local.exists() else path

    model, data = config.model, config.data
    sources = tuple(s.model_copy(update={"path": anchored(s.path)}) for s in data.sources)
    paths = {"path": anchored(model.path)}
    paths |= {k: anchored(v) for k in ("tokenizer", "chat_template") if (v := getattr(model, k)) is not None}
    checkpoint = config.checkpoint
    if checkpoint.dir is not None and "://" not in checkpoint.dir:
        checkpoint = checkpoint.model_copy(update={"dir": str(Path(checkpoint.dir).expanduser().absolute())})
    return config.model_copy(
        update={
            "checkpoint": checkpoint,
            "run": config.run.model_copy(update={"dir": config.run.dir.expanduser().absolute()}),
            "model": model.model_copy(update=paths),
            "data": data.model_copy(update={"sources": sources, "cache_dir": data.cache_dir.expanduser().absolute()}),
        }
    )


def check_run(config: SftConfig) -> None:
    """Refuse a run folder in which another run has trained. One that was only planned may be planned anew.

    Raises:
        UserError: data, model, stages or seed differ; the message shows how.
    """
    run = RunFolder(config.run.dir)
    if not run.config.is_file() or not run.has_trained():
        return
    old = yaml.safe_load(run.config.read_text(encoding="utf-8"))
    changed = _differences(hide_secrets(old), hide_secrets(config.model_dump(mode="json", by_alias=True)))
    if changed:
        lines = "\n".join(f"  {path}: was {before!r}, now {after!r}" for path, before, after in changed)
        raise UserError(
            f"{run.path} holds a run with another config:\n{lines}\n"
            "Set these back to resume it, or give run.dir a new folder to start another."
        )


def write_run_record(config: SftConfig) -> None:
    """Write the resolved config and the versions of what computes."""
    run = RunFolder(config.run.dir)
    shown = hide_secrets(config.model_dump(mode="json", by_alias=True))  # others read the run folder
    write_text(run.config, yaml.safe_dump(shown, sort_keys=False, allow_unicode=True))
    versions = {name: version(name) for name in PACKAGES}
    write_json(run.manifest, {"versions": {"python": platform.python_version(), **versions}})


def _differences(old: Any, new: Any, path: str = "") -> list[tuple[str, Any, Any]]:
    of_source = re.fullmatch(r"data\.sources\.\d+\.(\w+)", path)
    if path in _FREE or path in _FREE_FIELDS or (of_source and of_source[1] in _FREE_OF_SOURCES):
        return []
    if isinstance(old, dict) and isinstance(new, dict):
        keys = [*old, *(key for key in new if key not in old)]
        return [d for k in keys for d in _differences(old.get(k), new.get(k), f"{path}.{k}".lstrip("."))]
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        return [d for i, pair in enumerate(zip(old, new, strict=True)) for d in _differences(*pair, f"{path}.{i}")]
    return [] if old == new else [(path, old, new)]
