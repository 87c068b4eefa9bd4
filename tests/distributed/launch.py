"""Starts real ranks: processes that meet over gloo, each running one function of `tests.distributed.scenarios`."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def run_ranks(world_size: int, scenario: str, settings: dict[str, Any], timeout_seconds: float = 240) -> Any:
    """What the first rank's `scenario(settings, world)` returns; fails with the output of the rank that failed."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        (place / "settings.json").write_text(json.dumps(settings))
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        processes = []
        for rank in range(world_size):
            command = [
                sys.executable,
                "-m",
                "tests.distributed.rank_main",
                scenario,
                folder,
                str(rank),
                str(world_size),
            ]
            with (place / f"rank-{rank}.log").open("wb") as log:
                process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, cwd=ROOT, env=environment)
            processes.append(process)
        try:
            failed = [rank for rank, process in enumerate(processes) if process.wait(timeout_seconds)]
        except subprocess.TimeoutExpired:
            failed = [rank for rank, process in enumerate(processes) if process.poll() is None]
        finally:
            for process in processes:
                process.kill()
                process.wait()
        logs = "\n".join(f"--- rank {rank}\n{(place / f'rank-{rank}.log').read_text()[-3000:]}" for rank in failed)
        assert not failed, f"{scenario}: ranks {failed} failed or did not end\n{logs}"
        return json.loads((place / "result.json").read_text())
