"""A real Ray cluster of three machines, which wants a token, and a fourth machine that only submits."""

import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from sft.run_folder import RunFolder
from tests.conftest import SmallRecords
from tests.jobs import two_stage_job
from tests.nodes.nodes import Nodes, running_nodes

HEAD, WORKERS, LAPTOP = "node1", ("node2", "node3"), "node4"
_TOKEN_PATH = "/tmp/ray-token"  # each node has a /tmp of its own

# What docs/CLUSTER.md sets on every node.
_SETTINGS = {
    "RAY_health_check_initial_delay_ms": "2000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_enable_metrics_collection": "0",
    "AUTOSCALER_METRIC_PORT": "-1",
    "DASHBOARD_METRIC_PORT": "-1",
}

WriteConfig = Callable[..., RunFolder]


class RayCluster:
    """Ray on the nodes, started by hand as docs/CLUSTER.md says."""

    def __init__(self, nodes: Nodes) -> None:
        self.nodes = nodes
        self.token = secrets.token_hex(32)
        self.dashboard = f"http://{nodes.address(HEAD)}:8265"
        self.client = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": _TOKEN_PATH}

    def up(self, node: str) -> None:
        """Switch a node on; it is in the cluster when this returns, but for the laptop."""
        self.nodes.up(node)
        self.nodes.run(node, "bash", "-c", f"umask 077; cat > {_TOKEN_PATH}", stdin=self.token)
        if node == LAPTOP:
            return
        address = self.nodes.address(node)
        options = ["--node-ip-address", address, "--object-store-memory", "100000000", "--disable-usage-stats"]
        if node == HEAD:
            options += ["--head", "--port", "6379", "--dashboard-host", address, "--num-cpus", "0"]
        else:
            options += ["--address", f"{self.nodes.address(HEAD)}:6379", "--num-cpus", "2"]
        self.nodes.run(node, "ray", "start", *options, variables={**self.client, **_SETTINGS})

    def sft(self, node: str, *arguments: object, code: int = 0, **variables: str) -> str:
        """What `sft` prints there."""
        command = ["python", "-m", "launcher", *arguments]
        done = self.nodes.run(node, *command, variables=variables or self.client, code=code)
        return done.stdout + done.stderr

    def jobs(self, *arguments: object) -> str:
        """What `ray job` prints on the head."""
        command = ["ray", "job", *arguments, "--address", self.dashboard]
        done = self.nodes.run(HEAD, *command, variables=self.client)
        return done.stdout + done.stderr


@pytest.fixture(scope="session")
def ray_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayCluster]:
    """A head, two workers with two CPUs each, and a machine without Ray."""
    assert os.geteuid() == 0, "these tests need root: make test-nodes"
    assert shutil.which("ip"), "iproute2 is missing: make test-nodes installs it"
    shared = tmp_path_factory.mktemp("shared")
    with running_nodes(tmp_path_factory.mktemp("nodes"), 4, shared) as nodes:
        cluster = RayCluster(nodes)
        for node in (HEAD, *WORKERS, LAPTOP):
            cluster.up(node)
        yield cluster


@pytest.fixture(scope="session")
def write_config(ray_cluster: RayCluster, tiny_model_dir: Path, small_records: SmallRecords) -> WriteConfig:
    """A function that puts the config of a run on the laptop, and nowhere else."""
    shared = ray_cluster.nodes.shared
    model = shutil.copytree(tiny_model_dir, shared / "model")
    records = SmallRecords(*(Path(shutil.copy(path, shared)) for path in small_records))

    def write(name: str, steps: dict[str, int], workers: int | list[int], preflight: bool = False) -> RunFolder:
        # A worker takes all of a node's CPUs. One test looks at the nodes first, which takes long.
        cluster = {"cluster": {"workers": workers, "cpus_per_worker": 2, "preflight": preflight}}
        text = yaml.safe_dump(two_stage_job(name, shared, model, records, steps) | cluster)
        ray_cluster.nodes.run(LAPTOP, "bash", "-c", f"cat > {config_of(name)}", stdin=text)
        return RunFolder(shared / name)

    return write


def config_of(name: str) -> str:
    """Where the config of a run lies on the laptop."""
    return f"/tmp/{name}.yaml"
