"""What is to be talked to: the models of a run, or one model in a folder of its own, about which less is known."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from sft.absolute_paths import absolute_paths, local_path, may_be_hub_id, near_it
from sft.config import DTYPE_BYTES, SftConfig, SourceConfig
from sft.config_yaml import Document
from sft.errors import UserError
from sft.hub_answers import check_hub_answers
from sft.job_config import JobConfig, load_job, read_job
from sft.run_claim import is_claimed
from sft.run_folder import RunFolder
from sft.small_files import read_small_json

CHAT_TOKENS = 512
"""The longest reply, unless something else is asked for: `evaluate.max_new_tokens` of a config is for scoring."""
_OF_FOLDER = (
    "Tokenizer, template and stop tokens are those of the model's folder. It does not say whether the model was "
    "trained with a system text or a task tag."
)
_NO_DATA = {"name": "chat", "path": "chat.jsonl", "format": "messages"}
_OF_CHAT = (f"evaluate.max_new_tokens={CHAT_TOKENS}",)


class Target(NamedTuple):
    """The models to choose from, and how they are talked to."""

    config: SftConfig
    """With absolute paths. That of a single model is made around it."""
    wants_gpu: bool
    model: str | None
    """The folder or Hub id of a single model; None for a run."""
    notes: tuple[str, ...]
    """What the user should know."""


def open_target(text: str, overrides: Sequence[str]) -> Target:
    """The target of a chat.

    Args:
        text: the folder of a run, a config, the folder of a model, or its id on the Hub.
        overrides: `section.field=value`.

    Raises:
        UserError: it is none of these, or a setting is wrong.
    """
    path = local_path(text)
    try:
        return _opened(text, path, [*_OF_CHAT, *overrides])
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from None


def _opened(text: str, path: Path, settings: Sequence[str]) -> Target:
    if path.is_file():
        return _of_run(load_job(path, settings), path)
    if (path / "config.yaml").is_file():
        return _of_run(load_job(path / "config.yaml", settings), path)
    if not (path / "config.json").is_file():
        if path.is_dir():
            there = ", ".join(sorted(entry.name for entry in path.iterdir())[:8]) or "nothing"
            raise UserError(
                f"{path} is neither the folder of a run (config.yaml) nor that of a model (config.json); it holds "
                f"{there}. Name one of these, a config, or the id of a model on the Hub."
            )
        if not may_be_hub_id(text, "model"):
            raise UserError(f"there is no {path}{near_it(path)}. Name a run, a config, or a model.")
    return _of_model(text, path, settings)


def _of_run(job: JobConfig, path: Path) -> Target:
    if is_claimed(RunFolder(path)):  # it may have been moved since its config was written
        run = job.sft.run.model_copy(update={"dir": path})
        job = job.model_copy(update={"sft": job.sft.model_copy(update={"run": run})})
    return _checked(job, None, job.notes)


def _of_model(text: str, path: Path, settings: Sequence[str]) -> Target:
    """The config around a model has what a config needs; of it, only what concerns prompts and answers is used."""
    content = {
        "run": {"name": "chat", "dir": str(path)},
        # A template that ends its answers is left as it is.
        "model": {"path": text, "dtype": _dtype_of(path), "turn_end": "auto"},
        "data": {"sources": [_NO_DATA]},
        "stages": [{"name": "chat", "budget": {"steps": 1}, "optimizer": {"lr": 1e-5}}],
    }
    notes = [_OF_FOLDER]
    run = RunFolder(path.parents[2]) if len(path.parents) > 2 else None
    if run is not None and path.parents[1] == run.stages and is_claimed(run):
        notes.append(f"It belongs to a run: `sft chat {run.path}` knows these, and the model that it began with.")
    return _checked(read_job(Document(content, {}), text, settings), text, notes)


def _checked(job: JobConfig, model: str | None, notes: Sequence[str]) -> Target:
    # A chat reads no data, which may be elsewhere.
    data = job.sft.data.model_copy(update={"sources": (SourceConfig.model_validate(_NO_DATA),)})
    config = absolute_paths(job.sft.model_copy(update={"data": data}))
    check_hub_answers(config)
    return Target(config, job.cluster.gpus_per_worker > 0, model and config.model.path, tuple(notes))


def _dtype_of(folder: Path) -> str:
    """What the model was saved in, if it can be computed in; else the config's default."""
    file = folder / "config.json"
    content: Any = read_small_json(file, "the model's config") if file.is_file() else {}
    found = content.get("dtype", content.get("torch_dtype")) if isinstance(content, dict) else None
    return found if isinstance(found, str) and found in DTYPE_BYTES else "bfloat16"
