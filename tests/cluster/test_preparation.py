"""Preparation on a real Ray: whatever is lost of it, and of what speaks to it, the store is what one process makes."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest
import yaml
from ray.cluster_utils import Cluster

from sft.config import DataConfig, ModelConfig
from sft.data.preparation import prepare_store
from tests.cluster.conftest import WriteConfig, joined
from tests.conftest import instruction_records

ROOT = Path(__file__).parents[2]
# Blocks of a size that makes many of a small file.
PREPARE = """
import sys
from launcher.cli import main
from sft.data.reading import blocks
blocks.BLOCK_BYTES = 30_000
sys.exit(main(["prepare", *sys.argv[1:]]))
"""
# As a machine with more CPUs does, and with so many blocks that a loss is noticed before the last.
PREPARE_ON_RAY = PREPARE.replace("30_000", "1_500").replace(
    "sys.exit", "from launcher.cluster import block_executor as by\nby._LEAST_BLOCKS, by._LEAST_CPUS = 1, 1\nsys.exit"
)
NUM_BLOCKS = 40
RECORDS = instruction_records()


@pytest.fixture
def cluster(head: Cluster) -> Iterator[Cluster]:
    """Of three nodes with a CPU each."""
    with joined(head, {"num_cpus": 1}, {"num_cpus": 1}):
        yield head


@pytest.fixture
def config(write_config: WriteConfig, tmp_path: Path) -> Path:
    """A job whose data has many blocks, every record another."""
    content = yaml.safe_load(write_config("many").read_text())
    path, num_bytes = tmp_path / "many.jsonl", 0
    with path.open("w", encoding="utf-8") as file:
        for i in range(100_000):
            record = RECORDS[i % len(RECORDS)]
            num_bytes += file.write(json.dumps(record | {"input": f"{i} {record['input']}"}) + "\n")
            if num_bytes > NUM_BLOCKS * 30_000:
                break
    content["run"]["dir"] = str(tmp_path / "run")
    content["data"]["cache_dir"] = str(tmp_path / "cache")
    content["data"]["sources"][0]["path"] = str(path)
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(content))
    return config


@pytest.mark.long
def test_killed_and_with_a_lost_node_the_cluster_makes_the_store_that_one_process_makes(
    cluster: Cluster, config: Path, tmp_path: Path
) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "RAY_ADDRESS": cluster.address}
    command = [sys.executable, "-c", PREPARE, str(config)]
    killed = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=ROOT, env=environment, start_new_session=True
    )
    try:
        wait_for_parts(tmp_path, 4, killed)
    finally:
        os.killpg(killed.pid, signal.SIGKILL)
        killed.wait(30)
    num_there = num_parts(tmp_path)
    assert 4 <= num_there < NUM_BLOCKS, "it was over before it was killed"

    resumed = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT, env=environment
    )
    try:
        wait_for_parts(tmp_path, num_there + 4, resumed)
        cluster.remove_node(cluster.worker_nodes.copy().pop(), allow_graceful=False)
        output, _ = resumed.communicate(timeout=150)
    finally:
        resumed.kill()
    assert resumed.returncode == 0, output[-3000:]
    assert_as_alone(config, tmp_path)


@pytest.mark.long
def test_a_ray_that_is_lost_is_started_again_and_nothing_is_missing_or_there_twice(
    config: Path, tmp_path: Path
) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "RAY_ADDRESS": ""}
    log = tmp_path / "log"
    with log.open("wb") as file:
        command = [sys.executable, "-c", PREPARE_ON_RAY, str(config)]
        job = subprocess.Popen(command, stdout=file, stderr=file, cwd=ROOT, env=environment)
    try:
        for num_lost, victim in enumerate(("gcs_server", "raylet", "launcher.cluster.block_process"), 1):
            wait_for_parts(tmp_path, num_parts(tmp_path) + 4, job)
            with suspended_tasks(job.pid) as suspend:
                kill_below(job.pid, victim)
                deadline = time.monotonic() + 60
                while log.read_text().count("the preparation goes on with a Ray that is started again") < num_lost:
                    assert job.poll() is None, f"it ended: {log.read_text()}"
                    assert time.monotonic() < deadline, f"{victim} is not missed: {log.read_text()}"
                    suspend()
                    time.sleep(0.1)
        assert job.wait(150) == 0, log.read_text()
    finally:
        job.kill()
        job.wait()
    assert "Traceback" not in log.read_text()
    assert_as_alone(config, tmp_path)


@contextmanager
def suspended_tasks(pid: int) -> Iterator[Callable[[], None]]:
    """What it gives stops the Ray tasks below a process: they are shorter than a loss takes to be seen."""
    stopped: list[psutil.Process] = []

    def suspend() -> None:
        for process in psutil.Process(pid).children(recursive=True):
            with suppress(psutil.Error):
                if process.name().startswith("ray::"):
                    process.suspend()
                    stopped.append(process)

    suspend()
    try:
        yield suspend
    finally:
        for process in stopped:
            with suppress(psutil.Error):
                process.resume()


def kill_below(pid: int, name: str) -> None:
    """The process of this name among the descendants."""
    for process in psutil.Process(pid).children(recursive=True):
        with suppress(psutil.Error):
            if any(word.endswith(name) for word in process.cmdline()):
                process.kill()
                return
    raise AssertionError(f"there is no {name}")


def assert_as_alone(config: Path, tmp_path: Path) -> None:
    """The store is that which one process makes."""
    (made,) = (p.parent for p in (tmp_path / "cache" / "tokens").glob("*/manifest.json"))

    content = yaml.safe_load(config.read_text())
    data = DataConfig.model_validate(content["data"] | {"cache_dir": str(tmp_path / "alone")})
    alone = prepare_store(data, ModelConfig.model_validate(content["model"]))
    assert alone.path.name == made.name
    for name in alone.manifest["files"]:
        assert (made / name).read_bytes() == (alone.path / name).read_bytes()


def num_parts(folder: Path) -> int:
    return len(list((folder / "cache" / "tokens").glob(".*.parts/[0-9]*.safetensors")))


def wait_for_parts(folder: Path, number: int, process: subprocess.Popen[bytes] | subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while num_parts(folder) < number:
        assert process.poll() is None, "it ended by itself"
        assert time.monotonic() < deadline, f"there are only {num_parts(folder)} parts"
        time.sleep(0.01)
