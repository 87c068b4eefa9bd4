"""Opens the storage of a stage's checkpoints, from `checkpoint.dir`."""

from pathlib import Path

from sft.checkpoint.local_storage import LocalStorage
from sft.checkpoint.storage import CheckpointStorage
from sft.config import CheckpointConfig
from sft.run_folder import StageFolder


def stage_storage(config: CheckpointConfig, folder: StageFolder) -> CheckpointStorage:
    """The stage's part of `checkpoint.dir`, or of the run folder.

    Raises:
        UserError: it is a URL that cannot be used.
    """
    return open_storage(stage_location(config, folder))


def stage_location(config: CheckpointConfig, folder: StageFolder) -> str:
    """Where it is, as a path or a URL."""
    return str(folder.checkpoints) if config.dir is None else f"{config.dir.rstrip('/')}/{folder.path.name}"


def open_storage(location: str | Path) -> CheckpointStorage:
    """The storage of one stage's checkpoints: a URL is object storage, anything else a folder.

    Raises:
        UserError: the URL cannot be used.
    """
    if isinstance(location, str) and "://" in location and not location.startswith("file://"):
        from sft.checkpoint.remote_storage import RemoteStorage  # noqa: PLC0415  (every command starts sooner without fsspec)

        return RemoteStorage(location)
    return LocalStorage(Path(str(location).removeprefix("file://")))
