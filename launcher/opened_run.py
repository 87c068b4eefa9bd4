"""Opens the run that a verb is to look at: its folder, of which files of others with the same names make none."""

from pathlib import Path

from sft.absolute_paths import local_path
from sft.config_file import read_yaml
from sft.errors import UserError
from sft.run_claim import is_claimed
from sft.run_folder import RunFolder


def open_run(path: Path) -> RunFolder:
    """The folder of a run.

    Raises:
        UserError: it is none. Where a config is meant, it is said where its run is.
    """
    run = RunFolder(path)
    if is_claimed(run):
        return run
    config = path if path.is_file() else run.config
    where = _run_of(config)
    way_out = f". The run of {config} is in {where}" if where else ""
    raise UserError(f"{path} is not the folder of a run: there is no {run.manifest.name} of a run in it{way_out}")


def _run_of(config: Path) -> Path | None:
    """Where the run of a config is, seen from the working folder; None where this is no config, or there is no run."""
    try:
        path = local_path(read_yaml(config).content["run"]["dir"])
    except (UserError, LookupError, TypeError):
        return None
    return path if is_claimed(RunFolder(path)) else None
