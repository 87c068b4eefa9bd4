"""A worker on CPUs sees no GPU, whatever its node shows it."""

import os

import pytest
import ray
from ray.cluster_utils import Cluster

from launcher.cluster.hidden_gpus import runtime_env
from sft.job_config import ClusterConfig


@ray.remote(num_cpus=0)
def seen() -> str | None:
    return os.environ.get("CUDA_VISIBLE_DEVICES")


@pytest.mark.long
def test_a_worker_sees_gpus_only_where_the_job_asks_for_them(head: Cluster) -> None:
    ray.init(address=head.address, log_to_driver=False, runtime_env={"env_vars": {"CUDA_VISIBLE_DEVICES": "0"}})
    try:
        wishes = [runtime_env(ClusterConfig(gpus_per_worker=gpus)) for gpus in (0, 1)]
        shown = [seen.options(runtime_env=environment).remote() for environment in wishes]
        assert ray.get(shown, timeout=60) == ["", "0"]
    finally:
        ray.shutdown()
