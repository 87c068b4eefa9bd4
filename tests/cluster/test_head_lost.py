"""Ray's head node dies with everything on it: the driver ends, and the same command goes on on another cluster."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ray.cluster_utils import Cluster

from sft.run_folder import RunFolder
from tests.cluster.conftest import WriteConfig
from tests.cluster.test_killed import losses, run_to_end, wait_for_step

ROOT = Path(__file__).parents[2]


@contextmanager
def one_node() -> Iterator[Cluster]:
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 3})
    try:
        yield cluster
    finally:
        cluster.shutdown()


def test_the_same_command_goes_on_after_the_head_was_lost(write_config: WriteConfig, tmp_path: Path) -> None:
    config = write_config("headless")
    run = RunFolder(config.with_suffix(""))
    command = [sys.executable, "-m", "launcher", "train", str(config)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    # Ray's default is a minute.
    environment["RAY_gcs_rpc_server_reconnect_timeout_s"] = "5"
    log = tmp_path / "driver.log"
    with one_node() as cluster, log.open("wb") as file:
        environment["RAY_ADDRESS"] = cluster.address
        with subprocess.Popen(command, stdout=file, stderr=file, cwd=ROOT, env=environment) as driver:
            try:
                wait_for_step(run, attempt=1, step=6, process=driver)
                cluster.head_node.kill_gcs_server(check_alive=False)
                cluster.head_node.kill_raylet(check_alive=False)
                assert driver.wait(120) not in (0, 3), log.read_text()[-3000:]
            finally:
                driver.kill()
    with one_node() as cluster:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=200, cwd=ROOT,
            env={**environment, "RAY_ADDRESS": cluster.address},
        )  # fmt: skip
        assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    assert len(losses(run, "words")) == 50
    run_to_end([sys.executable, "-m", "launcher", "verify", str(run.path)])
