"""The argument of every verb that reads a run: its folder. Imports nothing slow, so that `--help` is quick."""

import argparse
from pathlib import Path


def add_run_argument(parser: argparse.ArgumentParser) -> None:
    """The argument `run_dir`."""
    parser.add_argument("run_dir", type=Path, metavar="RUN_DIR", help="the folder of a run (`run.dir`)")
