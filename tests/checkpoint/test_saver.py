"""A checkpoint is published or absent, is of no world size, and gives back every element to the bit."""

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sft.atomic_files import check_files, hash_file, is_published, read_manifest
from sft.checkpoint.local_storage import LocalStorage, checkpoint_path, published_steps
from sft.checkpoint.rank_file import CheckpointReader
from sft.engine.engine import Shard
from sft.world import World
from tests.checkpoint.ranks import KEYS, Rank, names, range_of, resumed_step, run_ranks, save_steps, state_of, values_of


@settings(deadline=None, max_examples=20)
@given(numel=st.integers(1, 40), saved=st.integers(1, 4), loaded=st.integers(1, 4))
def test_any_world_size_reads_what_any_other_wrote(
    tmp_path_factory: pytest.TempPathFactory, numel: int, saved: int, loaded: int
) -> None:
    storage = LocalStorage(tmp_path_factory.mktemp("checkpoints"))
    save_steps(storage, saved, 3, numel=numel)
    assert resumed_step(storage, loaded, numel)[0] == 3


def test_what_is_not_there_is_not_read(tmp_path: Path) -> None:
    save_steps(LocalStorage(tmp_path), 2, 1)
    with CheckpointReader(checkpoint_path(tmp_path, 1)) as reader:
        assert torch.equal(reader.read("weight/master", 0, 37), values_of(1, "weight/master"))
        with pytest.raises(KeyError, match="belongs to another model"):
            reader.read("bias/master", 0, 1)
        with pytest.raises(ValueError, match="holds 37 of elements 0 to 38"):
            reader.read("weight/master", 0, 38)


def test_its_manifest_has_the_hash_of_every_file_and_what_the_caller_says(tmp_path: Path) -> None:
    save_steps(LocalStorage(tmp_path), 2, 5)
    path = checkpoint_path(tmp_path, 5)
    manifest = read_manifest(path)
    assert [manifest[key] for key in ("kind", "step", "world_size", "stage", "num_updates")] == [
        "checkpoint",
        5,
        2,
        "x",
        4,
    ]
    files = {p.name: hash_file(p) for p in path.iterdir() if p.name != "manifest.json"}
    assert {name: entry["sha256"] for name, entry in manifest["files"].items()} == files
    assert len(files) == 2
    assert check_files(path) == []


def test_what_is_not_published_is_not_there(tmp_path: Path) -> None:
    """One of two ranks has written: nothing is to be seen, and the next start of the job clears it away."""

    def main(rank: Rank) -> None:
        saver = rank.saver(LocalStorage(tmp_path))
        if not rank.world.is_first:
            saver.save(4, state_of(4, rank.world), {})
        saver.close()

    run_ranks(2, main)
    assert published_steps(tmp_path) == []
    assert names(tmp_path) == [".step-00000004.attempt-0001-0001.partial"]
    save_steps(LocalStorage(tmp_path), 2, 9, attempt=2)
    assert names(tmp_path) == ["step-00000009"]


def test_half_a_folder_without_a_manifest_is_replaced(tmp_path: Path) -> None:
    path = checkpoint_path(tmp_path, 1)
    path.mkdir()
    (path / "rank-00000-of-00001.safetensors").write_text("half")
    assert published_steps(tmp_path) == []
    save_steps(LocalStorage(tmp_path), 1, 1)
    assert resumed_step(LocalStorage(tmp_path), 1)[0] == 1


def test_a_published_one_is_never_overwritten(tmp_path: Path) -> None:
    save_steps(LocalStorage(tmp_path), 2, 1)
    before = {path: path.read_bytes() for path in checkpoint_path(tmp_path, 1).iterdir()}
    save_steps(LocalStorage(tmp_path), 3, 1)
    assert {path: path.read_bytes() for path in checkpoint_path(tmp_path, 1).iterdir()} == before
    assert names(tmp_path) == ["step-00000001"]


def test_a_thread_saves_the_state_as_it_was(tmp_path: Path) -> None:
    def main(rank: Rank) -> None:
        saver = rank.saver(LocalStorage(tmp_path))
        values = torch.zeros(1000)
        saver.save(1, {"weight/master": Shard(1000, 0, values)}, {})
        values += 1  # training goes on
        assert saver.finish()
        saver.close()

    run_ranks(1, main)
    with CheckpointReader(checkpoint_path(tmp_path, 1)) as reader:
        assert not reader.read("weight/master", 0, 1000).any()


def test_without_a_thread_it_is_published_when_save_returns(tmp_path: Path) -> None:
    def main(rank: Rank) -> None:
        saver = rank.saver(LocalStorage(tmp_path), async_=False)
        saver.save(1, state_of(1, rank.world), {})
        assert is_published(checkpoint_path(tmp_path, 1))
        assert saver.finish()
        saver.close()

    run_ranks(3, main)


def test_old_ones_go_after_a_newer_one_is_published(tmp_path: Path) -> None:
    save_steps(LocalStorage(tmp_path), 2, 5, 10, 15, 20, keep_last=2, keep_every_steps=10)
    assert names(tmp_path) == ["step-00000010", "step-00000015", "step-00000020"]


def test_the_hook_runs_before_anything_is_to_be_seen(tmp_path: Path) -> None:
    seen: list[list[int]] = []
    save_steps(LocalStorage(tmp_path), 2, 1, 2, before_publish=lambda: seen.append(published_steps(tmp_path)))
    assert seen == [[], [1]], "once for each save, on the first rank alone"


def test_reading_runs_no_code(tmp_path: Path) -> None:
    """The files are safetensors and JSON: there is no pickle in them to be run."""
    save_steps(LocalStorage(tmp_path), 2, 1)
    for path in checkpoint_path(tmp_path, 1).iterdir():
        if path.suffix == ".json":
            json.loads(path.read_text())
        else:
            header_len = int.from_bytes(path.read_bytes()[:8], "little")
            json.loads(path.read_bytes()[8 : 8 + header_len])


def test_a_rank_opens_the_files_with_its_part_only(tmp_path: Path) -> None:
    """Of four ranks' files, the first of two needs the first two: the others may even be gone."""
    save_steps(LocalStorage(tmp_path), 4, 1, numel=40)
    for rank in (2, 3):
        (checkpoint_path(tmp_path, 1) / f"rank-0000{rank}-of-00004.safetensors").unlink()

    def main(rank: Rank) -> None:
        reader = rank.open(LocalStorage(tmp_path), parts=dict.fromkeys(KEYS, range(20)))
        assert reader is not None
        with reader:
            assert torch.equal(reader.read("norm/master", 0, 20), values_of(1, "norm/master", 40)[:20])
        assert range_of(rank.world, 40) == range(40)

    run_ranks(1, main)


def test_which_elements_a_rank_holds_is_for_whoever_saves_and_whoever_reads_to_say(tmp_path: Path) -> None:
    """Saved with the last part on the first rank; read by as many ranks with the first part there."""
    storage = LocalStorage(tmp_path)

    def save(rank: Rank) -> None:
        saver = rank.saver(storage)
        saver.save(1, state_of(1, World(rank.world.size - 1 - rank.world.rank, rank.world.size)), {"num_updates": 0})
        assert saver.finish()
        saver.close()

    run_ranks(3, save)
    assert resumed_step(storage, 3)[0] == 1
    assert resumed_step(storage, 2)[0] == 1
