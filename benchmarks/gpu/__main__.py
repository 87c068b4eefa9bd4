"""The command; see the package."""

import argparse
import os
import shutil
import sys
import tempfile
from pathlib import Path

from benchmarks.gpu import run
from benchmarks.gpu.parts import PARTS

_MEMORY = Path("/dev/shm")
_NEEDED_BYTES = 24 * 1024**3
"""Three models and a checkpoint."""


def main() -> int:
    parser = argparse.ArgumentParser(description=run.DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--small", action="store_true", help="tiny models, all parts in this process")
    parser.add_argument("--separate", action="store_true", help="with --small too, each part in a process of its own")
    parser.add_argument("--only", type=int, nargs="+", choices=[part.number for part in PARTS], help="these parts")
    parser.add_argument("--out", type=Path, default=Path("gpu.json"), help="the JSON; written after each row")
    parser.add_argument("--folder", type=Path, help="for models and checkpoints; default: memory, if it is enough")
    parser.add_argument("--part", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part is not None:
        run.serve(options.part, options.device, options.small, options.folder)
        return 0
    separate = options.separate or not options.small
    parent = options.folder or roomy(options.small)
    with tempfile.TemporaryDirectory(prefix="sft-gpu-", dir=parent) as folder:
        return run.run_all(options.device, options.small, separate, Path(folder), options.only, options.out)


def roomy(small: bool) -> Path | None:
    """Files in memory, if it holds the models; else None, for the usual temporary folder."""
    is_enough = _MEMORY.is_dir() and os.access(_MEMORY, os.W_OK)
    needed = 0 if small else _NEEDED_BYTES
    return _MEMORY if is_enough and shutil.disk_usage(_MEMORY).free > needed else None


if __name__ == "__main__":
    sys.exit(main())
