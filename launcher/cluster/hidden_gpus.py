"""A worker without GPUs of its own sees none: Ray would show it all that the machine has."""

from typing import Any

from sft.job_config import ClusterConfig


def runtime_env(cluster: ClusterConfig) -> dict[str, Any]:
    """Ray's, for a process that computes on what the job asks for each worker."""
    return {} if cluster.gpus_per_worker else {"env_vars": {"CUDA_VISIBLE_DEVICES": ""}}
