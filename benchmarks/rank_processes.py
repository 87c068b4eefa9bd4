"""Ranks of a benchmark as processes of their own: each is another call of the same script."""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

SECONDS = 900
"""Longer than any rank takes."""


def run_ranks(script: str, arguments: Sequence[Sequence[str]], folder: Path, **environment: str) -> None:
    """Run the script once for each rank's arguments, all at the same time; their logs lie in `folder`.

    Raises:
        SystemExit: a rank has failed; with the end of its log.
    """
    own: Mapping[str, str] = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1]), **environment}
    ranks = []
    for rank, given in enumerate(arguments):
        with (folder / f"rank-{rank}.log").open("wb") as log:
            command = [sys.executable, script, *given]
            ranks.append(subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, **own}))
    try:
        failed = [rank for rank, process in enumerate(ranks) if process.wait(SECONDS)]
    finally:
        for process in ranks:
            process.kill()
    if failed:
        raise SystemExit((folder / f"rank-{failed[0]}.log").read_text()[-4000:])


def of_process(file: str, key: str) -> int:
    """The number of this process under that key in a file of /proc/self."""
    lines = Path(f"/proc/self/{file}").read_text(encoding="utf-8").splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(f"{key}:")))
