"""From `checkpoint.dir` to the place of a stage's checkpoints."""

from pathlib import Path

from sft.checkpoint.local_place import LocalPlace
from sft.checkpoint.places import Place
from sft.config import CheckpointConfig
from sft.run_folder import StageFolder


def stage_place(config: CheckpointConfig, folder: StageFolder) -> Place:
    """The stage's part of `checkpoint.dir`, or of the run folder.

    Raises:
        UserError: it is a URL that cannot be used.
    """
    return open_place(stage_location(config, folder))


def stage_location(config: CheckpointConfig, folder: StageFolder) -> str:
    """Where it is, as a path or a URL."""
    return str(folder.checkpoints) if config.dir is None else f"{config.dir.rstrip('/')}/{folder.path.name}"


def open_place(location: str | Path) -> Place:
    """The place of one stage's checkpoints: a URL is object storage, anything else a folder.

    Raises:
        UserError: the URL cannot be used.
    """
    if isinstance(location, str) and "://" in location and not location.startswith("file://"):
        from sft.checkpoint.remote_place import RemotePlace  # noqa: PLC0415  (every command starts sooner without fsspec)

        return RemotePlace(location)
    return LocalPlace(Path(str(location).removeprefix("file://")))
