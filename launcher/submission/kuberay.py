"""`sft submit ray --kuberay`: a job's plan as a manifest for KubeRay, an operator that runs Ray on Kubernetes.

The manifest is a ConfigMap with the config and a RayJob: a head pod, in which `sft train` runs, and a pod for every
`kubernetes.workers_per_pod` workers. The field names are those of the ray.io/v1 API (KubeRay 1.5.1 or newer).
"""

import json
import re
import shlex
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import PurePosixPath
from typing import Any

import yaml

from launcher.plan import JobPlan
from launcher.submission.portable_job import ENVIRONMENT, train_command
from sft.config_file import ConfigError
from sft.config_paths import named_paths
from sft.config_rules import Problem
from sft.errors import UserError
from sft.job_config import JobConfig, KubernetesConfig

_CONFIG_FOLDER, _CONFIG = "/etc/sft", "config.yaml"
_GPU = "nvidia.com/gpu"
_MOST_NAME_CHARACTERS = 47
"""The limit for a RayJob: KubeRay appends more to it."""

_OBJECT_STORE_BYTES = 1024**3
"""Ray's object store, in /dev/shm. Training data does not go through it."""

_POD_ENVIRONMENT = {
    # A silent pod counts as lost after 5 to 10 seconds, not after a minute.
    "RAY_health_check_initial_delay_ms": "2000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "5",
    "RAY_USAGE_STATS_ENABLED": "0",
}


def render_manifest(job: JobConfig, plan: JobPlan, config: str, origin: str) -> str:
    """The manifest of a job, for `kubectl apply`.

    Args:
        job: the job, with its section `kubernetes`.
        plan: what the job asks for.
        config: its config as the pods read it.
        origin: where the config came from, for messages.

    Raises:
        UserError: something of `kubernetes` is missing or does not fit the rest, or Kubernetes does not allow the name.
    """
    kubernetes = job.kubernetes
    if kubernetes is None:
        raise UserError(
            f"{origin}: --kuberay needs a section `kubernetes`, such as "
            "{image: registry/sft:1.0, memory_gib_per_pod: 64, volumes: {sft-claim: /shared}}"
        )
    problems = [*_folders_outside(job, kubernetes), *_uneven_pods(plan, kubernetes)]
    if problems:
        raise ConfigError(origin, problems, job.lines)
    name = _name(job.sft.run.name)
    metadata = {"name": name} | ({"namespace": kubernetes.namespace} if kubernetes.namespace else {})
    config_map = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata | {"name": f"{name}-config"},
        "data": {_CONFIG: config},
    }
    ray_job = {"apiVersion": "ray.io/v1", "kind": "RayJob", "metadata": metadata, "spec": _spec(job, plan, kubernetes)}
    return yaml.dump_all([config_map, ray_job], Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


class _Dumper(yaml.SafeDumper):
    """Writes a text of several lines as a block."""


_Dumper.add_representer(
    str, lambda d, text: d.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)
)


def _folders_outside(job: JobConfig, kubernetes: KubernetesConfig) -> Iterator[Problem]:
    """The folders that all pods must see but that are on none of the volumes."""
    for _, field, folder, mark in named_paths(job.sft):
        is_shared = mark.is_written and "://" not in folder
        if is_shared and not any(PurePosixPath(folder).is_relative_to(mount) for mount in kubernetes.volumes.values()):
            mounts = ", ".join(kubernetes.volumes.values()) or "nothing"
            rule = f"is on no volume that all pods see (kubernetes.volumes has {mounts}), and would vanish with its pod"
            yield Problem(field, folder, rule, "choose a folder on one of them, or add its claim")


def _uneven_pods(plan: JobPlan, kubernetes: KubernetesConfig) -> Iterator[Problem]:
    per_pod = kubernetes.workers_per_pod
    if plan.min_workers % per_pod or plan.max_workers % per_pod:
        rule = f"a pod holds {per_pod} workers (kubernetes.workers_per_pod), and the job asks for whole pods"
        yield Problem("cluster.workers", plan.workers, rule, f"choose multiples of {per_pod}, or other pods")


def _name(run_name: str) -> str:
    name = re.sub("[^a-z0-9]+", "-", run_name.lower()).strip("-")
    if not re.match("[a-z]", name) or len(name) > _MOST_NAME_CHARACTERS:
        raise UserError(
            f"run.name: {run_name} becomes {name!r} on Kubernetes, where the name of a RayJob begins with a letter and "
            f"has at most {_MOST_NAME_CHARACTERS} characters. Give another, such as run.name=sft-{name[:20]}."
        )
    return name


def _spec(job: JobConfig, plan: JobPlan, kubernetes: KubernetesConfig) -> dict[str, Any]:
    cpus = job.ray.driver_resources.get("CPU")
    others = {name: amount for name, amount in job.ray.driver_resources.items() if name != "CPU"}
    return {
        "entrypoint": shlex.join(train_command(job, f"{_CONFIG_FOLDER}/{_CONFIG}", is_shipped=False)),
        **({"entrypointNumCpus": cpus} if cpus else {}),
        **({"entrypointResources": json.dumps(others)} if others else {}),
        "runtimeEnvYAML": yaml.safe_dump({"env_vars": ENVIRONMENT}),
        "submissionMode": "K8sJobMode",
        # Each retry is a new Ray cluster on which the run goes on, for example after a lost head.
        "backoffLimit": kubernetes.retries,
        "shutdownAfterJobFinishes": True,
        "rayClusterSpec": {
            "rayVersion": version("ray"),
            # KubeRay makes the token, and keeps it in a Secret.
            "authOptions": {"mode": "token"},
            **({"enableInTreeAutoscaling": True} if plan.is_elastic else {}),
            "headGroupSpec": {
                # 0 CPUs: no worker is placed there. The only addresses are the pod's own and loopback.
                "rayStartParams": {"num-cpus": "0", "dashboard-host": "0.0.0.0"} | _START,
                "template": {"spec": _pod(job, kubernetes, "ray-head", _head_resources(kubernetes), is_head=True)},
            },
            "workerGroupSpecs": [_worker_group(job, plan, kubernetes)],
        },
    }


_START = {"object-store-memory": str(_OBJECT_STORE_BYTES)}


def _worker_group(job: JobConfig, plan: JobPlan, kubernetes: KubernetesConfig) -> dict[str, Any]:
    per_pod = kubernetes.workers_per_pod
    cpus, gpus = (total // plan.max_workers * per_pod for total in (plan.cpus, plan.gpus))
    resources = {"cpu": str(cpus), "memory": f"{kubernetes.memory_gib_per_pod}Gi"} | ({_GPU: str(gpus)} if gpus else {})
    least, most = plan.min_workers // per_pod, plan.max_workers // per_pod
    return {
        "groupName": "workers",
        # KubeRay submits the job when all replicas run. Ray Train asks the autoscaler for more of them.
        "replicas": least,
        "minReplicas": least,
        "maxReplicas": most,
        "rayStartParams": dict(_START),
        "template": {"spec": _pod(job, kubernetes, "ray-worker", resources, is_head=False)},
    }


def _head_resources(kubernetes: KubernetesConfig) -> dict[str, str]:
    return {"cpu": str(kubernetes.head_cpus), "memory": f"{kubernetes.head_memory_gib}Gi"}


def _pod(
    job: JobConfig, kubernetes: KubernetesConfig, name: str, resources: dict[str, str], is_head: bool
) -> dict[str, Any]:
    volumes: list[dict[str, Any]] = [
        {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": f"{kubernetes.shm_gib_per_pod}Gi"}}
    ]
    mounts: list[dict[str, Any]] = [{"name": "shm", "mountPath": "/dev/shm"}]
    for number, (claim, path) in enumerate(kubernetes.volumes.items()):
        volumes.append({"name": f"shared-{number}", "persistentVolumeClaim": {"claimName": claim}})
        mounts.append({"name": f"shared-{number}", "mountPath": path})
    if is_head:
        volumes.append({"name": "config", "configMap": {"name": f"{_name(job.sft.run.name)}-config"}})
        mounts.append({"name": "config", "mountPath": _CONFIG_FOLDER, "readOnly": True})
    container: dict[str, Any] = {
        "name": name,
        "image": kubernetes.image,
        "env": [{"name": variable, "value": value} for variable, value in _POD_ENVIRONMENT.items()],
        "resources": {"requests": resources, "limits": dict(resources)},
        "volumeMounts": mounts,
    }
    if kubernetes.secrets:
        container["envFrom"] = [{"secretRef": {"name": secret}} for secret in kubernetes.secrets]
    pod: dict[str, Any] = {"containers": [container], "volumes": volumes}
    if kubernetes.service_account:
        pod["serviceAccountName"] = kubernetes.service_account
    if kubernetes.node_selector and not is_head:
        pod["nodeSelector"] = dict(kubernetes.node_selector)
    return pod
