"""Real Ray: a healthy cluster is clean although it is busy; of a node that is wrong in many ways all are found; one
that says nothing is an error, and one that dies meanwhile is left out.
"""

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event

import pytest
import ray
import yaml
from ray.cluster_utils import Cluster

from launcher.cli import main
from launcher.config import load_job
from launcher.preflight.checks import check
from launcher.preflight.findings import About
from tests.cluster.conftest import WriteConfig
from tests.cluster.running import wait_until

ROOT = Path(__file__).parents[2]
# A lost node is noticed within seconds.
QUICK = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 1000, "health_check_failure_threshold": 4}
SICK_CPUS = 4
BEHIND_SECONDS = 30


@pytest.fixture(scope="module")
def nodes() -> Iterator[Cluster]:
    """A head that has no room for a worker, and two nodes with room for one each."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "_system_config": QUICK})
    for _ in range(2):
        cluster.add_node(num_cpus=2)
    yield cluster
    cluster.shutdown()


@pytest.fixture
def config(
    nodes: Cluster, write_config: WriteConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Path]:
    monkeypatch.setenv("RAY_ADDRESS", nodes.address)
    # Ray gives the folder in which the driver is started to the workers, where they would find this program again.
    monkeypatch.chdir(tmp_path)
    path = write_config("checked")
    content = yaml.safe_load(path.read_text())
    content["cluster"] = {"workers": 2, "cpus_per_worker": 2}
    content["run"]["dir"] = str(tmp_path / "runs" / "checked")
    content["data"]["cache_dir"] = str(tmp_path / "cache")
    path.write_text(yaml.safe_dump(content))
    yield path
    assert not ray.is_initialized()


@contextmanager
def connected(nodes: Cluster) -> Iterator[None]:
    ray.init(address=nodes.address, namespace="busy", logging_level=logging.ERROR, log_to_driver=False)
    try:
        yield
    finally:
        ray.shutdown()


@pytest.fixture
def all_cpus_held(nodes: Cluster) -> Iterator[None]:
    """A job that outlives its driver has all of both nodes."""
    with connected(nodes):
        holders = [
            ray.remote(num_cpus=2, lifetime="detached", name=node.node_id)(Event).remote()  # anything that stays
            for node in nodes.worker_nodes
        ]
        ray.get([holder.is_set.remote() for holder in holders], timeout=60)
    yield
    with connected(nodes):
        for node in nodes.worker_nodes:
            ray.kill(ray.get_actor(node.node_id))


def test_a_healthy_cluster_is_clean_although_it_is_busy_and_nothing_is_left(
    config: Path, nodes: Cluster, all_cpus_held: None, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    code = main(["preflight", str(config), "--json"])
    told = json.loads(capsys.readouterr().out)
    assert told["findings"] == []
    assert code == 0
    assert [node["room"] for node in told["nodes"]] == [0, 1, 1], "the driver, and two nodes with room for a worker"
    assert len({node["source"] for node in told["nodes"]}) == 1
    for node in told["nodes"][1:]:
        assert abs(node["clock"]["seconds"]) <= node["clock"]["bound"] < 1, "one machine has one clock"
        assert node["facts"]["versions"] == told["nodes"][0]["facts"]["versions"]
    assert told["all_reduce"]["num_nodes"] == 2
    assert told["all_reduce"]["gigabytes_per_second"] > 0
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def sick(nodes: Cluster, config: Path, tmp_path: Path, tiny_model_dir: Path) -> "Iterator[subprocess.Popen[bytes]]":
    """A node that has an older program, another package, variable and clock, disks of its own and tight limits."""
    older = tmp_path / "older"
    for package in ("sft", "launcher"):
        shutil.copytree(ROOT / package, older / package, ignore=shutil.ignore_patterns("__pycache__"))
    with (older / "sft" / "errors.py").open("a") as file:
        file.write("# one line more\n")
    package = older / "transformers-4.9.9.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: transformers\nVersion: 4.9.9\n")
    clock = f"import time\n_now = time.time\ntime.time = lambda: _now() - {BEHIND_SECONDS}\n"
    (older / "sitecustomize.py").write_text(clock)
    for folder in ("runs/checked", "cache", "small"):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    script = f"""
        set -e
        ulimit -n 1000
        mount -t tmpfs -o size=1m none {tiny_model_dir}
        mount -t tmpfs -o size=1m none {tmp_path}/runs
        mkdir {tmp_path}/runs/checked
        mount -t tmpfs -o size=9m none {tmp_path}/small
        exec "$@"
    """
    ray_start = [str(Path(sys.executable).with_name("ray")), "start", "--address", nodes.address, "--block"]
    ray_start += ["--node-name", "sick", "--num-cpus", str(SICK_CPUS), "--object-store-memory", "100000000"]
    variables = {"PYTHONPATH": str(older), "TMPDIR": str(tmp_path / "small"), "NCCL_DEBUG": "INFO"}
    with (tmp_path / "sick.log").open("wb") as log:
        process = subprocess.Popen(
            [*own_mounts(), "bash", "-c", script, "bash", *ray_start],
            env={**os.environ, **variables, "RAY_ADDRESS": ""},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        wait_until(lambda: "sick" in names(nodes), 60, "the node did not join")
        yield process
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(30)
        wait_until(lambda: "sick" not in names(nodes), 60, "Ray did not notice that the node is gone")


def own_mounts() -> list[str]:
    """The words before a command that is to have mounts of its own."""
    command = ["unshare", *([] if os.geteuid() == 0 else ["--map-root-user"]), "--mount", "--propagation", "private"]
    if shutil.which("unshare") is None or subprocess.run([*command, "true"], capture_output=True).returncode != 0:
        pytest.skip("this user may not have mounts of its own")
    return command


def names(nodes: Cluster) -> set[str]:
    return {node["NodeName"] for node in nodes.global_state.node_table() if node["Alive"]}


def test_all_that_is_wrong_with_a_node_is_found_at_once_and_one_that_says_nothing_too(
    config: Path, sick: "subprocess.Popen[bytes]", capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["train", str(config)]) == 2
    out, err = capsys.readouterr()
    errors = [line.strip() for line in err.splitlines()[1:-1]]
    warnings = [line.removeprefix("warning  ") for line in out.splitlines() if line.startswith("warning  ")]
    run, small = tmp_path / "runs" / "checked", tmp_path / "small"
    for found, expected in (
        (
            errors,
            [
                "versions: the source of this program differs: ",
                "versions: transformers differs: ",
                "files: sick: model.path (",
                f"files: sick: run.dir ({run}) is not the driver's: what the driver writes there is not seen",
            ],
        ),
        (
            warnings,
            [
                f"clocks: sick: its clock is {BEHIND_SECONDS}.",
                f"limits: sick: the temporary folder ({small}) has ",
                "limits: sick: a process may have 1000 files open",
                "environment: NCCL_DEBUG differs: not set on ",
            ],
        ),
    ):
        assert len(found) == len(expected), found
        for text, start in zip(found, expected, strict=True):
            assert text.startswith(start)
    assert "; 4.9.9 on sick. " in errors[1]
    assert "lacks chat_template.jinja and 5 more files" in errors[2]
    assert err.startswith("Preflight of 3 nodes in ")
    assert err.endswith("cluster.preflight=false\n")
    assert not list((tmp_path / "cache").iterdir()), "nothing was prepared"
    assert not (run / "attempts").exists(), "no worker was placed"
    assert [path.name for path in run.iterdir()] == [], "nothing is left"

    alone = load_job(config, ["cluster.workers=1", f"cluster.cpus_per_worker={SICK_CPUS}"])
    raylet = next(pid for pid in processes_of(sick.pid) if "raylet/raylet" in command_of(pid))
    os.kill(raylet, signal.SIGSTOP)
    (finding,) = check(alone, answer_seconds=3).errors
    assert finding.about is About.NODES
    assert finding.nodes == ("sick",)
    assert "did not answer within 3 s (source)" in finding.text


def test_a_node_that_dies_meanwhile_is_left_out_with_a_warning(
    config: Path, sick: "subprocess.Popen[bytes]", nodes: Cluster
) -> None:
    os.killpg(sick.pid, signal.SIGKILL)
    assert "sick" in names(nodes), "Ray has noticed before it was asked"
    preflight = check(load_job(config))
    assert preflight.errors == []
    (warning,) = preflight.warnings
    assert warning.text == "sick has left the cluster meanwhile"


def test_too_little_room_is_found(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["preflight", str(config), "cluster.workers=5", "cluster.gpus_per_worker=1"]) == 2
    text = " ".join(capsys.readouterr().out.split())
    assert "5 workers of 2 CPUs and 1 GPUs are needed; there is room for 0 (none on any node)" in text


def processes_of(group: int) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if os.getsid(int(path.name)) == group:
                found.append(int(path.name))
        except OSError:
            continue
    return found


def command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""
