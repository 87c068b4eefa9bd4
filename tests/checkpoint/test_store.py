"""A checkpoint is published or absent, is of no world size, and gives back every element to the bit."""

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sft.atomic_files import hash_file, is_published, read_manifest
from sft.checkpoint.retention import checkpoints_to_delete
from sft.checkpoint.store import CheckpointReader, CheckpointStore, checkpoint_path, published_steps
from sft.engine.engine import Shard
from sft.world import World


def shards(values: torch.Tensor, world_size: int) -> list[Shard]:
    """The parts of a flat tensor as ZeRO-3 deals them out: `ceil(numel / world_size)` each, the last ones less."""
    share = -(-len(values) // world_size)
    starts = [min(rank * share, len(values)) for rank in range(world_size)]
    return [Shard(len(values), start, values[start : start + share]) for start in starts]


def save(folder: Path, values: torch.Tensor, world_size: int, step: int = 1, keep_last: int = 9) -> None:
    """All ranks save, the first last, for it is the one that waits for the others."""
    for rank in reversed(range(world_size)):
        store = CheckpointStore(folder, World(rank, world_size), 1, keep_last, asynchronous=False)
        store.save(step, {"weight/master": shards(values, world_size)[rank]}, {"stage": "x"})


@given(numel=st.integers(1, 40), saved=st.integers(1, 5), loaded=st.integers(1, 7))
def test_any_world_size_reads_what_any_other_wrote(
    tmp_path_factory: pytest.TempPathFactory, numel: int, saved: int, loaded: int
) -> None:
    folder = tmp_path_factory.mktemp("checkpoints")
    values = torch.randn(numel, generator=torch.Generator().manual_seed(numel))
    save(folder, values, saved)
    with CheckpointReader(checkpoint_path(folder, 1)) as reader:
        for shard in shards(values, loaded):
            stop = shard.start + len(shard.values)
            assert torch.equal(reader.read("weight/master", shard.start, stop), shard.values)
        with pytest.raises(KeyError, match="of another model"):
            reader.read("bias/master", 0, 1)
        with pytest.raises(ValueError, match="holds"):
            reader.read("weight/master", 0, numel + 1)


def test_it_is_published_by_its_manifest_with_the_hash_of_every_file(tmp_path: Path) -> None:
    save(tmp_path, torch.arange(10.0), 2)
    path = checkpoint_path(tmp_path, 1)
    manifest = read_manifest(path)
    assert (manifest["step"], manifest["world_size"], manifest["stage"]) == (1, 2, "x")
    files = {p.name: hash_file(p) for p in path.iterdir() if p.name != "manifest.json"}
    assert {name: entry["sha256"] for name, entry in manifest["files"].items()} == files
    assert len(files) == 2


def test_what_is_not_published_is_not_there(tmp_path: Path) -> None:
    """One of two ranks has written: nothing is to be seen, and the next start of the job clears it away."""
    shard = shards(torch.arange(10.0), 2)[1]
    CheckpointStore(tmp_path, World(1, 2), 1, 9, asynchronous=False).save(4, {"weight/master": shard}, {})
    assert published_steps(tmp_path) == []
    assert list(tmp_path.glob(".step-*"))
    CheckpointStore(tmp_path, World(0, 2), 2, 9, asynchronous=False)
    assert not list(tmp_path.glob(".step-*"))


def test_half_a_folder_without_a_manifest_is_replaced(tmp_path: Path) -> None:
    path = checkpoint_path(tmp_path, 1)
    path.mkdir()
    (path / "rank-00000-of-00001.safetensors").write_text("half")
    assert published_steps(tmp_path) == []
    save(tmp_path, torch.arange(3.0), 1)
    with CheckpointReader(path) as reader:
        assert reader.read("weight/master", 0, 3).tolist() == [0, 1, 2]


def test_a_published_one_is_never_overwritten(tmp_path: Path) -> None:
    save(tmp_path, torch.zeros(3), 1)
    save(tmp_path, torch.ones(3), 1)
    with CheckpointReader(checkpoint_path(tmp_path, 1)) as reader:
        assert reader.read("weight/master", 0, 3).tolist() == [0, 0, 0]


def test_a_thread_saves_the_state_as_it_was(tmp_path: Path) -> None:
    values = torch.zeros(1000)
    store = CheckpointStore(tmp_path, World(), 1, 9, asynchronous=True)
    store.save(1, {"weight/master": Shard(1000, 0, values)}, {})
    values += 1  # training goes on
    store.wait()
    with CheckpointReader(checkpoint_path(tmp_path, 1)) as reader:
        assert not reader.read("weight/master", 0, 1000).any()


def test_an_error_of_the_thread_is_not_lost(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, World(), 1, 9, asynchronous=True)
    (tmp_path / ".step-00000001.attempt-0001.partial").write_text("a file where the folder should be")
    store.save(1, {"weight/master": Shard(3, 0, torch.zeros(3))}, {})
    with pytest.raises(OSError, match="File exists|Not a directory"):
        store.wait()


def test_old_ones_go_after_a_newer_one_is_published(tmp_path: Path) -> None:
    for step in (5, 10, 15):
        save(tmp_path, torch.zeros(3), 1, step, keep_last=2)
        assert is_published(checkpoint_path(tmp_path, step))
    assert published_steps(tmp_path) == [10, 15]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-00000010", "step-00000015"]


@given(steps=st.lists(st.integers(0, 999), unique=True), keep_last=st.integers(1, 5))
def test_the_newest_are_kept(steps: list[int], keep_last: int) -> None:
    deleted = checkpoints_to_delete(steps, keep_last)
    kept = set(steps) - set(deleted)
    assert len(kept) == min(keep_last, len(steps))
    assert not deleted or max(deleted) < min(kept)


def test_reading_runs_no_code(tmp_path: Path) -> None:
    """The files are safetensors and JSON: there is no pickle in them to be run."""
    save(tmp_path, torch.arange(4.0), 2)
    for path in checkpoint_path(tmp_path, 1).iterdir():
        if path.suffix == ".json":
            json.loads(path.read_text())
        else:
            header_len = int.from_bytes(path.read_bytes()[:8], "little")
            json.loads(path.read_bytes()[8 : 8 + header_len])
