"""A small job in two stages, to be started as users start theirs."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from ray.cluster_utils import Cluster

from tests.conftest import SmallRecords
from tests.jobs import two_stage_job

NUM_STEPS = {"broad": 4, "words": 50}

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
        path.write_text(yaml.safe_dump({**content, "cluster": {"workers": 2}}))
        return path

    return write


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """A head for the controller, and two nodes that have room for one worker each."""
    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "resources": {"head": 1}})
    for _ in range(2):
        nodes.add_node(num_cpus=2)
    yield nodes
    nodes.shutdown()
