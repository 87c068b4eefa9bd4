"""The manifest for KubeRay asks for what the plan asks for, and holds the same config as every other way to start."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from launcher.cli import main
from launcher.plan import plan_job
from sft.job_config import load_job

CONFIG = """
run: {name: Tune_8b, dir: /shared/runs/tune}
model: {path: /shared/models/base}
data: {sources: [{name: only, path: owner/data, format: messages}], cache_dir: /shared/cache}
stages: [{name: broad, budget: {epochs: 2}, optimizer: {lr: 1.0e-5}}]
cluster: {workers: [16, 32], gpus_per_worker: 1, cpus_per_worker: 6}
kubernetes:
  image: registry/sft@sha256:0123
  volumes: {shared-claim: /shared}
  memory_gib_per_pod: 500
  workers_per_pod: 8
  secrets: [hub-token]
  node_selector: {gpu: h100}
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "job.yaml"
    path.write_text(CONFIG)
    return path


def rendered(
    capsys: pytest.CaptureFixture[str], config: Path, *overrides: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    assert main(["submit", "ray", str(config), "--kuberay", *overrides]) == 0
    config_map, ray_job = yaml.safe_load_all(capsys.readouterr().out)
    return config_map, ray_job


def refused(capsys: pytest.CaptureFixture[str], config: Path, *arguments: str) -> str:
    assert main(["submit", "ray", str(config), "--kuberay", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    return err


def pods(ray_job: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """The head's pod, the group of workers, and its pod."""
    cluster = ray_job["spec"]["rayClusterSpec"]
    (group,) = cluster["workerGroupSpecs"]
    return cluster["headGroupSpec"]["template"]["spec"], group, group["template"]["spec"]


@pytest.mark.parametrize(
    ("workers", "per_pod", "gpus", "cpus"),
    [("[16, 32]", 8, 1, 6), ("64", 8, 1, 12), ("4", 1, 0, 3), ("[2, 6]", 2, 0, 1), ("1", 1, 1, 8)],
)
def test_all_pods_together_have_what_the_plan_asks_for(capsys, config, workers, per_pod, gpus, cpus) -> None:
    overrides = [f"cluster.workers={workers}", f"kubernetes.workers_per_pod={per_pod}"]
    overrides += [f"cluster.gpus_per_worker={gpus}", f"cluster.cpus_per_worker={cpus}"]
    _, ray_job = rendered(capsys, config, *overrides)
    plan = plan_job(load_job(config, overrides))
    _, group, pod = pods(ray_job)
    resources = pod["containers"][0]["resources"]
    assert resources["requests"] == resources["limits"]
    assert group["maxReplicas"] * int(resources["limits"]["cpu"]) == plan.cpus
    assert group["maxReplicas"] * int(resources["limits"].get("nvidia.com/gpu", 0)) == plan.gpus
    assert (group["minReplicas"] * per_pod, group["maxReplicas"] * per_pod) == (plan.min_workers, plan.max_workers)
    # KubeRay submits the job when all replicas run; what lies above them is the autoscaler's.
    assert group["replicas"] == group["minReplicas"]
    assert ray_job["spec"]["rayClusterSpec"].get("enableInTreeAutoscaling", False) is plan.is_elastic


def test_the_pods_read_the_config_that_was_given(capsys, config: Path, tmp_path: Path) -> None:
    config_map, ray_job = rendered(capsys, config, "run.seed=5")
    (tmp_path / "read.yaml").write_text(config_map["data"]["config.yaml"])
    given, read = load_job(config, ["run.seed=5"]), load_job(tmp_path / "read.yaml")
    assert (read.sft, read.cluster) == (given.sft, given.cluster)

    head, _, _ = pods(ray_job)
    (mount,) = (m for m in head["containers"][0]["volumeMounts"] if m["name"] == "config")
    (volume,) = (v for v in head["volumes"] if v["name"] == "config")
    assert volume["configMap"]["name"] == config_map["metadata"]["name"]
    assert f" {mount['mountPath']}/config.yaml " in ray_job["spec"]["entrypoint"]
    # KubeRay puts the entrypoint into a shell's command line as it is.
    assert not set(ray_job["spec"]["entrypoint"]) & set("\"'$`;&|<>()\\")


def test_every_pod_sees_the_run_folder_and_has_its_share_of_memory(capsys, config: Path) -> None:
    _, ray_job = rendered(capsys, config)
    head, _, worker = pods(ray_job)
    for pod in (head, worker):
        (container,) = pod["containers"]
        claims = {
            v["name"]: v["persistentVolumeClaim"]["claimName"] for v in pod["volumes"] if "persistentVolumeClaim" in v
        }
        mounts = {m["mountPath"]: m["name"] for m in container["volumeMounts"]}
        assert claims[mounts["/shared"]] == "shared-claim"
        (shm,) = (v["emptyDir"] for v in pod["volumes"] if v["name"] == mounts["/dev/shm"])
        assert shm == {"medium": "Memory", "sizeLimit": "8Gi"}
        assert container["image"] == "registry/sft@sha256:0123"
    assert worker["nodeSelector"] == {"gpu": "h100"}
    assert "nodeSelector" not in head


def test_a_manifest_holds_names_of_secrets_and_no_secret(capsys, config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_canary")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "ray_canary")
    config_map, ray_job = rendered(capsys, config)
    assert "canary" not in json.dumps([config_map, ray_job])
    head, _, worker = pods(ray_job)
    for pod in (head, worker):
        assert pod["containers"][0]["envFrom"] == [{"secretRef": {"name": "hub-token"}}]
    assert ray_job["spec"]["rayClusterSpec"]["authOptions"] == {"mode": "token"}


def test_what_is_not_asked_for_is_not_there(capsys, config: Path) -> None:
    _, ray_job = rendered(capsys, config, "cluster.workers=16", "kubernetes.secrets=[]", "kubernetes.node_selector={}")
    text = json.dumps(ray_job)
    for name in ("namespace", "serviceAccountName", "nodeSelector", "envFrom", "entrypointNumCpus", "Autoscaling"):
        assert name not in text
    overrides = [
        "kubernetes.namespace=team",
        "kubernetes.service_account=trainer",
        "ray.driver_resources={CPU: 1, big: 2}",
    ]
    config_map, ray_job = rendered(capsys, config, *overrides)
    assert config_map["metadata"]["namespace"] == ray_job["metadata"]["namespace"] == "team"
    assert all(pod["serviceAccountName"] == "trainer" for pod in (pods(ray_job)[0], pods(ray_job)[2]))
    assert ray_job["spec"]["entrypointNumCpus"] == 1
    assert json.loads(ray_job["spec"]["entrypointResources"]) == {"big": 2}


def test_names_are_those_of_kubernetes(capsys, config: Path) -> None:
    config_map, ray_job = rendered(capsys, config)
    assert (ray_job["metadata"]["name"], config_map["metadata"]["name"]) == ("tune-8b", "tune-8b-config")
    for name in ("8b-tune", "x" * 48):
        assert f"run.name: {name} becomes" in refused(capsys, config, f"run.name={name}")


def test_what_would_be_lost_or_does_not_fit_is_refused_with_all_that_is_wrong(capsys, config: Path) -> None:
    message = refused(capsys, config, "run.dir=/scratch/run", "checkpoint.dir=/scratch/saved", "cluster.workers=12")
    assert "3 problems" in message
    assert message.count("is on no volume that all pods see (kubernetes.volumes has /shared)") == 2
    assert "a pod holds 8 workers" in message
    assert "run.dir: 'runs/here'" in refused(capsys, config, "run.dir=runs/here")
    assert "the pods run the program in their image" in refused(capsys, config, "--package", ".")
    config.write_text(CONFIG.partition("kubernetes:")[0])
    assert "needs a section `kubernetes`" in refused(capsys, config)


def test_mlflow_may_not_write_into_a_folder_that_vanishes_with_its_pod(capsys, config: Path) -> None:
    rendered(capsys, config, "logging.mlflow.tracking_uri=http://tracking")
    rendered(capsys, config, "logging.mlflow.tracking_uri=file:/shared/mlruns")
    assert main(["submit", "ray", "--kuberay", "--dry-run", str(config), "logging.mlflow.tracking_uri=/mlruns"]) == 2
    assert "logging.mlflow.tracking_uri: '/mlruns'" in capsys.readouterr().err


def test_a_checkpoint_in_object_storage_needs_no_volume(capsys, config: Path) -> None:
    rendered(capsys, config, "checkpoint.dir=s3://bucket/tune")
