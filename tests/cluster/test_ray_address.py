"""The job goes to the Ray cluster that `RAY_ADDRESS` names: two nodes of one CPU each hold one worker each."""

import json
import os
import subprocess
import sys
from pathlib import Path

import ray
from ray.cluster_utils import Cluster

from sft.run_folder import RunFolder
from tests.cluster.conftest import WriteConfig

ROOT = Path(__file__).parents[2]


def test_workers_are_placed_on_the_cluster_that_is_named(cluster: Cluster, write_config: WriteConfig) -> None:
    config = write_config("named")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "RAY_ADDRESS": cluster.address}
    command = [sys.executable, "-m", "launcher", "train", str(config)]
    # Two CPUs a worker: no node has room for both.
    command += ["cluster.cpus_per_worker=2", "stages.words.budget.steps=4"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, cwd=ROOT, env=environment)
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    assert f"on the Ray cluster at {cluster.address}" in done.stdout.replace("\n", " ")
    run = RunFolder(config.with_suffix(""))
    assert run.stage(1, "words").complete.is_file()
    assert json.loads((run.attempt(1) / "began.json").read_text())["world_size"] == 2

    too_large = [*command, f"run.dir={run.path}-2", "cluster.workers=9"]
    done = subprocess.run(too_large, capture_output=True, text=True, timeout=100, cwd=ROOT, env=environment)
    assert done.returncode == 2
    assert "9 workers need 18 CPUs" in done.stderr
    assert not ray.is_initialized()
