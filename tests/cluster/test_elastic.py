"""A node vanishes and the job goes on with fewer workers; a node joins and it grows again. Each pack is fed once."""

import json
import os
import subprocess
import sys
from pathlib import Path

from ray.cluster_utils import Cluster

from sft.run_folder import RunFolder
from sft.training.attempt import latest_attempt
from tests.cluster.conftest import WriteConfig
from tests.cluster.test_killed import metrics, run_to_end, wait_for_step, wait_until

ROOT = Path(__file__).parents[2]


def test_a_lost_node_shrinks_the_group_and_a_new_one_enlarges_it(
    cluster: Cluster, write_config: WriteConfig, tmp_path: Path
) -> None:
    config = write_config("elastic")
    run = RunFolder(config.with_suffix(""))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "RAY_ADDRESS": cluster.address}
    command = [sys.executable, "-m", "launcher", "train", str(config)]
    command += ["cluster.workers=[1, 2]", "cluster.cpus_per_worker=2", "stages.words.budget.steps=2000"]
    log = tmp_path / "driver.log"
    with log.open("wb") as file:
        driver = subprocess.Popen(command, stdout=file, stderr=file, cwd=ROOT, env=environment)
    try:
        wait_for_step(run, attempt=1, step=6, process=driver)
        cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)
        wait_for_size(run, 1)
        cluster.add_node(num_cpus=2)
        wait_for_size(run, 2)
        run.stop_file.touch()
        assert driver.wait(60) == 3, log.read_text()[-3000:]
    finally:
        driver.kill()
        driver.wait()
    assert "was gone: killed, out of memory, or its node was lost" in log.read_text().replace("\n", " ")
    run_to_end([sys.executable, "-m", "launcher", "verify", str(run.path)])


def wait_for_size(run: RunFolder, size: int) -> None:
    """Until an attempt with so many workers has trained a step."""

    def has_trained() -> bool:
        latest = latest_attempt(run)
        began = run.attempt(latest) / "began.json"
        if not began.is_file() or json.loads(began.read_text())["world_size"] != size:
            return False
        return any(line["attempt"] == latest for line in metrics(run, "words"))

    wait_until(has_trained, 120, f"no step was trained by {size} workers")
