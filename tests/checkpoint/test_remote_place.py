"""In object storage a checkpoint is there when its manifest is; all else is an upload that nobody sees."""

import tempfile
from pathlib import Path

import pytest

from sft.checkpoint.local_place import LocalPlace
from sft.checkpoint.open_place import open_place
from sft.checkpoint.remote_place import RemotePlace
from sft.checkpoint.retention import Retention
from sft.errors import UserError
from tests.checkpoint.places import StoredBytes
from tests.checkpoint.ranks import Rank, resumed_step, run_ranks, save_steps, state_of


def test_any_world_size_reads_what_any_other_wrote(in_memory: StoredBytes) -> None:
    for saved in (1, 3):
        save_steps(in_memory.place, saved, 10 * saved)
        for loaded in (1, 2, 3, 4):
            assert resumed_step(in_memory.place, loaded)[0] == 10 * saved


def test_old_ones_go_and_nothing_is_left(in_memory: StoredBytes) -> None:
    save_steps(in_memory.place, 2, 1, 2, 3, retention=Retention(1))
    assert in_memory.place.steps() == [3]
    assert in_memory.files.find(in_memory.root) == in_memory.files_of(3)


def test_an_upload_without_a_manifest_is_absent_and_cleared_away(in_memory: StoredBytes) -> None:
    save_steps(in_memory.place, 2, 1)

    def main(rank: Rank) -> None:
        store = rank.store(in_memory.place)
        if not rank.world.is_first:
            store.save(2, state_of(2, rank.world), {})
        store.close()

    run_ranks(2, main)
    assert len(in_memory.files_of(2)) == 2, "a file and its receipt"
    assert resumed_step(in_memory.place, 2) == (1, [])
    whole = in_memory.files_of(1)
    in_memory.place.discard_unfinished(attempt=1)
    assert len(in_memory.files_of(2)) == 2, "of this attempt nothing is removed"
    in_memory.place.discard_unfinished(attempt=2)
    assert in_memory.files_of(2) == []
    assert in_memory.files_of(1) == whole


def test_temporary_files_are_gone(in_memory: StoredBytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    save_steps(in_memory.place, 2, 1, 2)
    in_memory.change(in_memory.shards_of(2)[0], lambda content: content[:-1])
    assert resumed_step(in_memory.place, 3)[0] == 1
    assert list(tmp_path.iterdir()) == []


def test_a_network_that_fails_is_a_failed_save(in_memory: StoredBytes, monkeypatch: pytest.MonkeyPatch) -> None:
    class NetworkError(Exception):
        """What a package raises that has errors of its own."""

    def main(rank: Rank) -> None:
        def fail(*_: object, **__: object) -> None:
            raise NetworkError("no route")

        store = rank.store(in_memory.place)
        with monkeypatch.context() as patched:
            patched.setattr(type(in_memory.files), "put_file", fail)
            store.save(1, state_of(1, rank.world), {"num_updates": 0})
            assert not store.finish()
        store.save(1, state_of(1, rank.world), {"num_updates": 0})
        assert store.finish()
        store.close()
        assert "NetworkError: no route" in rank.reports[0]

    run_ranks(1, main)
    assert resumed_step(in_memory.place, 2)[0] == 1


def test_a_location_is_a_folder_or_a_url(tmp_path: Path) -> None:
    assert isinstance(open_place(tmp_path), LocalPlace)
    assert isinstance(open_place(str(tmp_path)), LocalPlace)
    save_steps(open_place(tmp_path.as_uri()), 1, 1)
    assert open_place(tmp_path).steps() == [1]
    assert isinstance(open_place("memory://x"), RemotePlace)
    with pytest.raises(UserError, match=r"Protocol not known: nowhere"):
        open_place("nowhere://bucket/run")
    with pytest.raises(UserError, match=r"`pip install adlfs`"):
        open_place("abfs://bucket/run")
