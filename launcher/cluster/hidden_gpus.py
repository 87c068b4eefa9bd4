"""Hides all GPUs from a worker that asks for none: Ray would show it all that the machine has."""

from typing import Any

from sft.job_config import ClusterConfig


def runtime_env(cluster: ClusterConfig) -> dict[str, Any]:
    """Ray's `runtime_env` for a process that computes with the resources of one worker."""
    return {} if cluster.gpus_per_worker else {"env_vars": {"CUDA_VISIBLE_DEVICES": ""}}
