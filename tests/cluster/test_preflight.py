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
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread

import pytest
import ray
import yaml
from ray.cluster_utils import Cluster

from launcher.cli import main
from launcher.preflight.checks import check
from launcher.preflight.findings import About
from sft.job_config import load_job
from tests.cluster.conftest import WriteConfig, joined
from tests.cluster.running import wait_until

pytestmark = pytest.mark.long

ROOT = Path(__file__).parents[2]
LARGE_CPUS, SICK_CPUS = 3, 4
LARGE = ["cluster.workers=1", f"cluster.cpus_per_worker={LARGE_CPUS}"]
"""A job for which one of the healthy nodes has room: each node that is asked takes seconds."""
BEHIND_SECONDS = 30


@pytest.fixture(scope="module")
def nodes(head: Cluster) -> Iterator[Cluster]:
    """A head that has no room for a worker, and two nodes with room for one; one of them for a large one, too."""
    with joined(head, {"num_cpus": 2}, {"num_cpus": LARGE_CPUS}):
        yield head


@pytest.fixture(scope="module")
def config(write_config: WriteConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A job in a folder of its own, of which nothing is there yet."""
    content = yaml.safe_load(write_config("checked").read_text())
    path = tmp_path_factory.mktemp("preflight") / "config.yaml"
    content["cluster"] = {"workers": 2, "cpus_per_worker": 2}
    content["run"]["dir"] = str(path.parent / "runs" / "checked")
    content["data"]["cache_dir"] = str(path.parent / "cache")
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.fixture(autouse=True)
def _on_the_cluster(nodes: Cluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setenv("RAY_ADDRESS", nodes.address)
    # Ray has its workers look for modules in the driver's folder, too, where they would find this program again.
    monkeypatch.chdir(tmp_path)
    yield
    assert not ray.is_initialized()


@contextmanager
def connected(nodes: Cluster) -> Iterator[None]:
    ray.init(address=nodes.address, namespace="busy", logging_level=logging.ERROR, log_to_driver=False)
    try:
        yield
    finally:
        ray.shutdown()


@pytest.fixture
def _all_cpus_held(nodes: Cluster) -> Iterator[None]:
    """A job that outlives its driver has all of both nodes."""
    held = (LARGE_CPUS, 2)  # in the order in which they have no choice
    with connected(nodes):
        for cpus in held:
            holder = ray.remote(num_cpus=cpus, lifetime="detached", name=f"{cpus} CPUs")(Event)  # anything that stays
            ray.get(holder.remote().is_set.remote(), timeout=60)
    yield
    with connected(nodes):
        for cpus in held:
            ray.kill(ray.get_actor(f"{cpus} CPUs"))


@pytest.mark.usefixtures("_all_cpus_held")
def test_a_healthy_cluster_is_clean_although_it_is_busy_and_nothing_is_left(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(config.parent.rglob("*"))
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
    assert sorted(config.parent.rglob("*")) == before


@pytest.fixture(scope="module")
def sick(nodes: Cluster, config: Path, tiny_model_dir: Path) -> "Iterator[subprocess.Popen[bytes]]":
    """A node that has an older program, another package, variable and clock, disks of its own and tight limits.

    The last test that uses it kills it.
    """
    folder = config.parent
    older = folder / "older"
    for package in ("sft", "launcher"):
        # With its byte code, of equal times and sizes; but for what another process is just writing.
        shutil.copytree(ROOT / package, older / package, ignore=shutil.ignore_patterns("*.pyc.*"))
    with (older / "sft" / "errors.py").open("a") as file:
        file.write("# one line more\n")
    package = older / "transformers-4.9.9.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: transformers\nVersion: 4.9.9\n")
    clock = f"import time\n_now = time.time\ntime.time = lambda: _now() - {BEHIND_SECONDS}\n"
    (older / "sitecustomize.py").write_text(clock)
    for name in ("runs/checked", "cache", "small"):
        (folder / name).mkdir(parents=True)
    script = f"""
        set -e
        ulimit -n 1000
        for package in sft launcher; do mount --bind {older}/$package {ROOT}/$package; done
        mount -t tmpfs -o size=1m none {tiny_model_dir}
        mount -t tmpfs -o size=1m none {folder}/runs
        mkdir {folder}/runs/checked
        mount -t tmpfs -o size=9m none {folder}/small
        exec "$@"
    """
    ray_start = [str(Path(sys.executable).with_name("ray")), "start", "--address", nodes.address, "--block"]
    ray_start += ["--node-name", "sick", "--num-cpus", str(SICK_CPUS), "--object-store-memory", "100000000"]
    variables = {"PYTHONPATH": str(older), "TMPDIR": str(folder / "small"), "NCCL_DEBUG": "INFO", "RAY_ADDRESS": ""}
    with (folder / "sick.log").open("wb") as log:
        process = subprocess.Popen(
            [*own_mounts(), "bash", "-c", script, "bash", *ray_start],
            env={**os.environ, **variables},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        wait_until(lambda: "sick" in names(nodes), 180, (folder / "sick.log").read_text())
        yield process
    finally:
        end(process)


def own_mounts() -> list[str]:
    """The words before a command that is to have mounts of its own."""
    command = ["unshare", *([] if os.geteuid() == 0 else ["--map-root-user"]), "--mount", "--propagation", "private"]
    if shutil.which("unshare") is None or subprocess.run([*command, "true"], capture_output=True).returncode != 0:
        pytest.skip("this user may not have mounts of its own")
    return command


def end(process: "subprocess.Popen[bytes]") -> None:
    """Every process of the node, at once."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(30)


def names(nodes: Cluster) -> set[str]:
    return {node["NodeName"] for node in nodes.global_state.node_table() if node["Alive"]}


@pytest.mark.usefixtures("sick")
def test_no_job_starts_and_all_that_is_wrong_with_a_node_is_said_at_once(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", str(config), *LARGE]) == 2
    out, err = capsys.readouterr()
    run, cache, small = (config.parent / name for name in ("runs/checked", "cache", "small"))
    first, *errors, last = err.splitlines()
    assert first.startswith("Preflight of 2 nodes in ")
    assert last.endswith("cluster.preflight=false")
    assert_each_starts_with(
        errors,
        "  versions: the source of this program differs: ",
        "  versions: transformers differs: ",
        "  files: sick: model.path (",
        f"  files: sick: run.dir ({run}) is not the driver's folder: the node does not see what the driver writes",
    )
    assert "; 4.9.9 on sick. " in errors[1]
    assert "lacks chat_template.jinja and 5 more files" in errors[2]
    assert_each_starts_with(
        [line for line in out.splitlines() if line.startswith("warning")],
        f"warning  clocks: sick: its clock is {BEHIND_SECONDS}.",
        f"warning  limits: sick: the temporary folder ({small}) has ",
        "warning  limits: sick: a process may have 1000 files open",
        "warning  environment: NCCL_DEBUG differs: ",
    )
    assert "INFO on sick" in " ".join(out.split())
    left = [path.name for path in (*run.iterdir(), *cache.iterdir())]
    assert left == ["layouts"], "the model was looked at; nothing was prepared, no worker was placed, no mark is left"


def assert_each_starts_with(lines: list[str], *starts: str) -> None:
    assert len(lines) == len(starts), lines
    for line, start in zip(lines, starts, strict=True):
        assert line.startswith(start)


def test_a_node_that_says_nothing_is_an_error_soon(config: Path, sick: "subprocess.Popen[bytes]") -> None:
    alone = load_job(config, ["cluster.workers=1", f"cluster.cpus_per_worker={SICK_CPUS}"])
    raylet = raylet_of(sick)
    os.kill(raylet, signal.SIGSTOP)
    try:
        (error,) = check(alone, answer_seconds=3).errors
    finally:
        os.kill(raylet, signal.SIGCONT)
    assert (error.about, error.nodes) == (About.NODES, ("sick",))
    assert "did not answer within 3 s (source)" in error.text


def test_a_node_that_dies_meanwhile_is_left_out_with_a_warning(config: Path, sick: "subprocess.Popen[bytes]") -> None:
    job = load_job(config)

    def kill_when_it_has_answered() -> None:
        raylet = raylet_of(sick)
        # Ray names a process by what it runs. This comes after all that the node is asked about itself, and lasts for
        # seconds: it waits for the driver's marks, which it cannot see.
        asked = "ray::NodeProbe.use_folders"
        wait_until(lambda: asked in commands_of_children(raylet), 60, "the node was not asked")
        end(sick)

    killer = Thread(target=kill_when_it_has_answered)
    killer.start()
    preflight = check(job)
    killer.join(60)
    assert preflight.errors == []
    assert [warning.text for warning in preflight.warnings] == ["sick has left the cluster meanwhile"]


def test_too_little_room_is_found(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["preflight", str(config), "cluster.workers=5", "cluster.gpus_per_worker=1"]) == 2
    text = " ".join(capsys.readouterr().out.split())
    assert "5 workers need 10 CPUs and 5 GPUs; there is room for 0 (none on any node)" in text


def test_without_a_preflight_too_a_job_that_has_no_room_is_refused(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", str(config), "cluster.preflight=false", "cluster.workers=9"]) == 2
    assert "9 workers need 18 CPUs" in capsys.readouterr().err


def raylet_of(process: "subprocess.Popen[bytes]") -> int:
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if os.getsid(int(path.name)) == process.pid and "raylet/raylet" in (path / "cmdline").read_text():
                return int(path.name)
    raise AssertionError("the node has no raylet")


def commands_of_children(parent: int) -> str:
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            # pid (name) state parent …; the name may hold anything
            if int((path / "stat").read_text().rpartition(")")[2].split()[1]) == parent:
                found.append((path / "cmdline").read_text().replace("\0", " "))
    return "\n".join(found)
