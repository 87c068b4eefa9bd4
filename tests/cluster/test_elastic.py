"""A node is given notice, and a checkpoint is saved; it vanishes, and the job goes on with fewer workers; a node joins,
and the group grows again. Each pack is fed once.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from ray.cluster_utils import Cluster

from sft.checkpoint.local_storage import published_steps
from sft.run_folder import RunFolder
from tests.cluster.conftest import WriteConfig, joined
from tests.cluster.running import metrics, run_to_end, wait_for_step, wait_until

ROOT = Path(__file__).parents[2]


EVERY_STEPS = 40


@pytest.fixture
def cluster(head: Cluster) -> Iterator[Cluster]:
    """A head for the controller, and two nodes that have room for one worker each."""
    with joined(head, {"num_cpus": 2}, {"num_cpus": 2}):
        yield head


@pytest.mark.long
def test_a_lost_node_shrinks_the_group_and_a_new_one_enlarges_it(
    cluster: Cluster, write_config: WriteConfig, tmp_path: Path
) -> None:
    config = write_config("elastic")
    run = RunFolder(config.with_suffix(""))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "RAY_ADDRESS": cluster.address}
    command = [sys.executable, "-m", "launcher", "train", str(config)]
    command += ["cluster.workers=[1, 2]", "cluster.cpus_per_worker=2", "stages.words.budget.steps=2000"]
    command += [f"checkpoint.every_steps={EVERY_STEPS}"]
    log = tmp_path / "driver.log"
    with log.open("wb") as file:
        driver = subprocess.Popen(command, stdout=file, stderr=file, cwd=ROOT, env=environment)
    try:
        wait_for_step(run, attempt=1, step=6, process=driver)
        node = next(iter(cluster.worker_nodes))
        give_notice(cluster, node.node_id)
        wait_until(lambda: bool(saved_between(run)), 30, "no checkpoint was saved for the node that is taken away")
        cluster.remove_node(node, allow_graceful=False)
        wait_for_size(run, 1)
        cluster.add_node(num_cpus=2)
        wait_for_size(run, 2)
        run.stop_file.touch()
        assert driver.wait(60) == 3, log.read_text()[-3000:]
    finally:
        driver.kill()
        driver.wait()
    assert "was gone: its " in log.read_text().replace("\n", " ")
    run_to_end([sys.executable, "-m", "launcher", "verify", str(run.path)])


def give_notice(cluster: Cluster, node: str) -> None:
    """Tell Ray, as an autoscaler or a cloud's agent does, that the node will be taken away in a minute."""
    command = ["ray", "drain-node", "--address", cluster.address, "--node-id", node]
    command += ["--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "spot", "--deadline-remaining-seconds"]
    subprocess.run([str(Path(sys.executable).with_name(command[0])), *command[1:], "60"], check=True, timeout=60)


def saved_between(run: RunFolder) -> list[int]:
    """The steps of checkpoints that were not due by themselves."""
    return [step for step in published_steps(run.stage(1, "words").checkpoints) if step % EVERY_STEPS]


def wait_for_size(run: RunFolder, size: int, seconds: float = 200) -> None:
    """Until an attempt with so many workers has trained a step."""

    def has_trained() -> bool:
        latest = run.latest_attempt()
        began = run.attempt(latest).began
        if not began.is_file() or json.loads(began.read_text())["world_size"] != size:
            return False
        return any(line["attempt"] == latest for line in metrics(run, "words"))

    wait_until(has_trained, seconds, f"no step was trained by {size} workers")
