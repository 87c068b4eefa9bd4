"""What is looked at on one node, with real files, sockets and all-reduces."""

import importlib
import os
import shutil
import socket
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM

import sft
from launcher.preflight import network, node_facts
from launcher.preflight.disk_need import check_disk, plan_disk
from launcher.preflight.network import Listener, Peer, open_store, summarize, time_all_reduce, unreachable
from launcher.preflight.node_facts import Request, look, read_contents, shown_variables, source_hash
from launcher.preflight.shared_folders import (
    SharedFolder,
    answer_on_node,
    leave_mark,
    mark_name,
    marked,
    remove_mark,
    sees_mark,
)
from sft.job_config import JobConfig, load_job
from sft.model.cpu_arithmetic import SLOW, computes_bfloat16
from tests.conftest import SmallRecords

CONFIG = """
run: {{name: one, dir: {folder}/run}}
model: {{path: {model}, dtype: float32}}
data: {{cache_dir: {folder}/cache, sources: [{{name: lists, path: {prompts}, format: prompt_completion}}]}}
stages:
  - {{name: broad, budget: {{steps: 4}}, optimizer: {{lr: 1.0e-4}}}}
  - {{name: narrow, budget: {{steps: 4}}, optimizer: {{lr: 1.0e-4}}}}
checkpoint: {{every_steps: 1, keep_last: 2}}
"""
LOCALHOST = "127.0.0.1"


@pytest.fixture
def job(tmp_path: Path, tiny_model_dir: Path, small_records: SmallRecords) -> JobConfig:
    path = tmp_path / "config.yaml"
    path.write_text(CONFIG.format(folder=tmp_path, model=tiny_model_dir, prompts=small_records.prompts))
    return load_job(path)


def test_a_node_with_another_byte_in_its_source_has_another_hash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "sft"
    shutil.copytree(Path(sft.__file__).parent, copy, ignore=shutil.ignore_patterns("__pycache__"))
    before = source_hash()
    monkeypatch.setattr(sft, "__path__", [str(copy)])
    assert source_hash() == before, "where it is installed does not matter"
    with (copy / "training" / "loop.py").open("a") as file:
        file.write("\n")
    assert source_hash() != before
    (copy / "training" / "loop.py").unlink()
    assert source_hash() != before


def test_a_processor_without_bfloat16_is_told_to_jobs_on_cpus_that_compute_in_it() -> None:
    told = None if computes_bfloat16() else SLOW
    assert look(Request((), computes_in_bfloat16=True)).slow_arithmetic == told
    assert look(Request(())).slow_arithmetic is None


def test_a_package_that_is_not_installed_is_a_version_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node_facts, "PACKAGES", ("numpy", "no-such-package"))
    versions = look(Request(())).versions
    assert versions["no-such-package"] == "not installed"
    assert versions["numpy"][0].isdigit()


def test_another_package_of_the_name_that_would_be_imported_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a folder `datasets` in one of PYTHONPATH; a folder without a package in it is in nobody's way."""
    (tmp_path / "installed" / "first").mkdir(parents=True)
    (tmp_path / "installed" / "first" / "__init__.py").touch()
    record = tmp_path / "installed" / "first-1.2.dist-info"
    record.mkdir()
    (record / "METADATA").write_text("Metadata-Version: 2.1\nName: first\nVersion: 1.2+cpu\n")
    monkeypatch.setattr(node_facts, "PACKAGES", ("first",))
    monkeypatch.setattr(sys, "path", [str(tmp_path / "here"), str(tmp_path / "installed"), *sys.path])
    (tmp_path / "here" / "first").mkdir(parents=True)
    assert look(Request(())).versions["first"] == "1.2"
    (tmp_path / "here" / "first" / "__init__.py").touch()
    importlib.invalidate_caches()
    assert look(Request(())).versions["first"] == f"1.2, shadowed by {tmp_path}/here/first"


def test_no_secret_leaves_the_node() -> None:
    environment = {
        "NCCL_SOCKET_IFNAME": "eth0",
        "OMP_NUM_THREADS": "4",
        "FI_PROVIDER": "efa",
        "NCCL_AUTH_TOKEN": "hunter2",
        "CUDA_API_KEY": "hunter2",
        "CUDA_VISIBLE_DEVICES": "3",
        "HF_TOKEN": "hunter2",
        "HOME": "here",
    }
    shown = shown_variables(environment)
    assert "hunter2" not in str(shown)
    assert shown == {
        "CUDA_API_KEY": "(not shown)",
        "FI_PROVIDER": "efa",
        "NCCL_AUTH_TOKEN": "(not shown)",
        "NCCL_SOCKET_IFNAME": "eth0",
        "OMP_NUM_THREADS": "4",
    }


def test_contents_differ_with_a_byte_of_a_small_file_and_with_the_size_of_a_large_one(tmp_path: Path) -> None:
    small, large = tmp_path / "config.json", tmp_path / "model.safetensors"
    small.write_bytes(b"{}")
    large.write_bytes(bytes(2**20 + 1))
    before = read_contents(tmp_path)
    assert set(before.files) == {"config.json", "model.safetensors"}
    small.write_bytes(b"[]")
    assert read_contents(tmp_path).files["config.json"] != before.files["config.json"]
    os.truncate(large, 2**20 + 2)
    assert read_contents(tmp_path).files["model.safetensors"] != before.files["model.safetensors"]
    assert read_contents(small).files == {"config.json": read_contents(tmp_path).files["config.json"]}
    assert read_contents(tmp_path / "none").problem == "is not there"


def test_a_folder_is_one_if_each_sees_the_others_mark_and_nothing_stays(tmp_path: Path) -> None:
    folder = SharedFolder("run.dir", str(tmp_path / "a" / "b"), nodes_write=True)
    with marked([folder], "w") as refused:
        assert refused == {}
        answer = answer_on_node(folder, "w", "n1")
        assert answer == (None, mark_name("w", "n1"))
        assert sees_mark(folder.location, mark_name("w", "n1"), within_seconds=0)
        remove_mark(folder.location, mark_name("w", "n1"))
    assert list(tmp_path.iterdir()) == [], "folders that were made for it are gone"


def test_a_folder_that_was_there_stays(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with marked([SharedFolder("run.dir", str(tmp_path / "a" / "b"), nodes_write=True)], "w"):
        (tmp_path / "a" / "b" / "of another").touch()
    assert (tmp_path / "a" / "b" / "of another").exists()
    assert len(list((tmp_path / "a" / "b").iterdir())) == 1


def test_a_folder_that_the_driver_cannot_write_is_said_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    folders = [SharedFolder(f, str(tmp_path / "file" / f), nodes_write=True) for f in ("run.dir", "checkpoint.dir")]
    folders.append(SharedFolder("data.cache_dir", str(tmp_path / "new" / ("x" * 300)), nodes_write=False))
    with marked(folders, "w") as refused:
        assert refused.pop("data.cache_dir") == "cannot be written: File name too long"
        assert refused == dict.fromkeys(("run.dir", "checkpoint.dir"), "cannot be written: Not a directory")
    assert [path.name for path in tmp_path.iterdir()] == ["file"], "nothing half-made stays"


def test_a_mark_of_another_check_is_none(tmp_path: Path) -> None:
    leave_mark(str(tmp_path), mark_name("earlier", "driver"))
    assert not sees_mark(str(tmp_path), mark_name("now", "driver"), within_seconds=0)


def test_object_storage_is_marked_alike() -> None:
    folder = SharedFolder("checkpoint.dir", "memory://bucket/run", nodes_write=True)
    with marked([folder], "w") as refused:
        assert refused == {}
        assert answer_on_node(folder, "w", "n1").problem is None
        remove_mark(folder.location, mark_name("w", "n1"))
    assert not sees_mark(folder.location, mark_name("w", "driver"), within_seconds=0)
    with marked([folder._replace(location="nosuch://me:hunter2@bucket/run")], "w") as refused:
        assert "nosuch" in refused["checkpoint.dir"]
        assert "hunter2" not in refused["checkpoint.dir"]


def test_a_mark_that_shows_late_is_waited_for(tmp_path: Path) -> None:
    name = mark_name("w", "n1")
    timer = threading.Timer(0.3, leave_mark, (str(tmp_path), name))
    timer.start()
    assert sees_mark(str(tmp_path), name, within_seconds=20)
    timer.join()


def test_who_listens_is_reached_and_who_does_not_is_named_with_the_reason() -> None:
    listener, gone, mute = Listener(LOCALHOST), Listener(LOCALHOST), socket.create_server((LOCALHOST, 0))
    gone.close()
    other = Listener(LOCALHOST)
    peers = {name: Peer(LOCALHOST, port) for name, port in (("here", listener.port), ("gone", gone.port))}
    assert unreachable(peers, "word") == {"gone": "Connection refused"}
    assert unreachable({}, "word") == {}
    for opened in (listener, other):
        opened.close()
    mute.close()


def test_something_else_on_the_port_is_not_taken_for_the_node() -> None:
    def answer() -> None:
        connection, _ = server.accept()
        with connection:
            connection.recv(256)
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\n")

    with socket.create_server((LOCALHOST, 0)) as server:
        thread = threading.Thread(target=answer)
        thread.start()
        peers = {"web": Peer(LOCALHOST, server.getsockname()[1])}
        assert unreachable(peers, "word") == {"web": "something else answers there"}
        thread.join(10)


def test_a_node_that_cannot_listen_on_its_address_says_so() -> None:
    with pytest.raises(OSError, match="assign requested address"):
        Listener("192.0.2.200")  # an address for documentation


def test_an_all_reduce_of_three_is_timed() -> None:
    store = open_store(LOCALHOST)
    where = Peer(LOCALHOST, store.port)
    with ThreadPoolExecutor(3) as ranks:
        seconds = list(ranks.map(lambda rank: time_all_reduce(LOCALHOST, rank, 3, where), range(3)))
    measured = summarize(seconds)
    assert measured.num_nodes == 3
    assert measured.seconds > 0
    assert measured.gigabytes_per_second == pytest.approx(32 * 2**20 / measured.seconds / 1e9)


def test_the_slowest_rank_counts() -> None:
    assert summarize([[1.0, 5.0, 2.0], [3.0, 1.0, 4.0]]).seconds == 4.0  # of 3, 5 and 4


def test_an_all_reduce_without_one_of_its_ranks_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "_COLLECTIVE_SECONDS", 1.0)
    store = open_store(LOCALHOST)
    with pytest.raises(RuntimeError, match="timeout"):
        time_all_reduce(LOCALHOST, 0, 2, Peer(LOCALHOST, store.port))


def test_the_disk_must_hold_models_and_checkpoints(job: JobConfig, tiny_model_dir: Path) -> None:
    number = sum(p.numel() for p in AutoModelForCausalLM.from_pretrained(tiny_model_dir).parameters())
    models, checkpoints = plan_disk(job.sft)
    assert models.num_bytes == 2 * 4 * number
    assert checkpoints.num_bytes == (2 + 2 + 1) * 12 * number  # of both stages, and one that is being written
    job.sft.run.dir.mkdir()
    assert check_disk(plan_disk(job.sft)) == []
    (finding,) = check_disk([models, checkpoints._replace(num_bytes=10**17)])
    assert finding.is_error
    assert "for 2 models of" in finding.text
    assert f"run.dir ({job.sft.run.dir})" in finding.text


def test_a_model_of_unknown_size_asks_for_nothing(job: JobConfig) -> None:
    unknown = job.sft.model.model_copy(update={"path": "owner/never-seen"})
    assert plan_disk(job.sft.model_copy(update={"model": unknown})) == []


def test_what_a_run_has_written_is_part_of_what_it_needs(job: JobConfig) -> None:
    job.sft.run.dir.mkdir()
    needs = [need._replace(num_bytes=10**15) for need in plan_disk(job.sft)]
    (empty,) = check_disk(needs)
    assert "this run already has 0 bytes" in empty.text
    written = needs[1].parts[0] / "step-00000200" / "rank-00000-of-00001.safetensors"
    written.parent.mkdir(parents=True)
    written.write_bytes(bytes(3_000_000))
    (later,) = check_disk(needs)
    assert "this run already has 3.0 MB" in later.text


def test_checkpoints_elsewhere_are_looked_for_there(job: JobConfig, tmp_path: Path) -> None:
    def with_dir(folder: str) -> list[str]:
        checkpoint = job.sft.checkpoint.model_copy(update={"dir": folder})
        return [f"{n.field} {n.folder}" for n in plan_disk(job.sft.model_copy(update={"checkpoint": checkpoint}))]

    run = f"run.dir {job.sft.run.dir}"
    assert with_dir(str(tmp_path / "disk")) == [run, f"checkpoint.dir {tmp_path / 'disk'}"]
    assert with_dir("s3://bucket/run") == [run]
