"""A small job in two stages, to be started as users start theirs."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray._private.node import Node
from ray.cluster_utils import Cluster

from tests.conftest import SmallRecords
from tests.jobs import two_stage_job

NUM_STEPS = {"broad": 4, "words": 64}

# That a node is lost is noticed sooner than by default, but later than that a process on it does not answer.
_QUICK = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 1000, "health_check_failure_threshold": 8}
# Nor is a worker started for each CPU before anything asks for one.
_QUICK["prestart_worker_first_driver"] = False

WriteConfig = Callable[[str], Path]


@pytest.fixture(scope="session")
def write_config(
    tiny_model_dir: Path, small_records: SmallRecords, tmp_path_factory: pytest.TempPathFactory
) -> WriteConfig:
    """A function that writes the config of a run in two stages, with a run folder of the given name."""
    folder = tmp_path_factory.mktemp("cluster")

    def write(name: str) -> Path:
        path = folder / f"{name}.yaml"
        content = two_stage_job(name, folder, tiny_model_dir, small_records, NUM_STEPS)
        # Nodes are looked at by tests of their own: it takes as long as all else that a job does before it trains.
        path.write_text(yaml.safe_dump({**content, "cluster": {"workers": 2, "preflight": False}}))
        return path

    return write


@contextmanager
def joined(head: Cluster, *nodes: dict[str, Any]) -> Iterator[list[Node]]:
    """The cluster has such nodes, and in the end none but its head."""
    yield [head.add_node(**node) for node in nodes]
    for node in list(head.worker_nodes):
        head.remove_node(node)


@pytest.fixture(scope="session")
def head() -> Iterator[Cluster]:
    """The head of a cluster that all tests here share, with room for a controller; nodes come and go."""
    # Without a port for a dashboard that nobody opens: another Ray on this machine may have the usual one.
    arguments = {"num_cpus": 1, "include_dashboard": False, "dashboard_port": None, "_system_config": _QUICK}
    cluster = Cluster(initialize_head=True, head_node_args=arguments)
    yield cluster
    cluster.shutdown()
