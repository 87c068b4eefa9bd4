"""What every verb that looks at a run takes: its folder. Imports nothing slow, so that `--help` is quick."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sft.run_folder import RunFolder


def add_run_argument(parser: argparse.ArgumentParser) -> None:
    """The argument `run_dir`."""
    parser.add_argument("run_dir", type=Path, metavar="RUN_DIR", help="the folder of a run (`run.dir`)")


def open_run(path: Path) -> "RunFolder":
    """The folder of a run.

    Raises:
        UserError: it is none. A config of a run may lie in any folder, and says where its run is.
    """
    from sft.errors import UserError
    from sft.run_claim import is_claimed
    from sft.run_folder import RunFolder

    run = RunFolder(path)
    if is_claimed(run):
        return run
    config = path if path.is_file() else run.config
    where = _run_of(config)
    way_out = f". The run of {config} is in {where}" if where else ""
    raise UserError(f"{path} is not the folder of a run: there is no {run.manifest.name} of a run in it{way_out}")


def _run_of(config: Path) -> Path | None:
    """Where the run of a config is, seen from the working folder; None where this is no config, or there is no run."""
    from sft.absolute_paths import local_path
    from sft.config_file import read_yaml
    from sft.errors import UserError
    from sft.run_claim import is_claimed
    from sft.run_folder import RunFolder

    try:
        path = local_path(read_yaml(config).content["run"]["dir"])
    except (UserError, LookupError, TypeError):
        return None
    return path if is_claimed(RunFolder(path)) else None
