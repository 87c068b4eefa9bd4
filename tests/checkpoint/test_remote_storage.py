"""In object storage a checkpoint is there when its manifest is; all else is an upload that nobody sees."""

import tempfile
from pathlib import Path
from typing import Any

import fsspec
import pytest
import s3fs

from sft.checkpoint.local_storage import LocalStorage
from sft.checkpoint.open_storage import open_storage
from sft.checkpoint.remote_storage import RemoteStorage
from sft.checkpoint.storage import SaveKey
from sft.errors import UserError
from tests.checkpoint.ranks import Rank, resumed_step, run_ranks, save_steps, state_of
from tests.checkpoint.storages import StoredBytes
from tests.s3_server import S3Server


def test_any_world_size_reads_what_any_other_wrote(remote: StoredBytes) -> None:
    for saved in (1, 3):
        save_steps(remote.storage, saved, 10 * saved)
        for loaded in (1, 2, 3, 4):
            assert resumed_step(remote.storage, loaded)[0] == 10 * saved


def test_old_ones_go_and_nothing_is_left(remote: StoredBytes) -> None:
    save_steps(remote.storage, 2, 1, 2, 3, keep_last=1)
    assert remote.storage.steps() == [3]
    assert remote.files.find(remote.root) == remote.files_of(3)


def test_an_upload_without_a_manifest_is_absent_and_cleared_away(remote: StoredBytes) -> None:
    save_steps(remote.storage, 2, 1)

    def main(rank: Rank) -> None:
        saver = rank.saver(remote.storage)
        if not rank.world.is_first:
            saver.save(2, state_of(2, rank.world), {})
        saver.close()

    run_ranks(2, main)
    assert len(remote.files_of(2)) == 2, "a file and its receipt"
    assert resumed_step(remote.storage, 2) == (1, [])
    whole = remote.files_of(1)
    remote.storage.discard_unfinished(attempt=1)
    assert len(remote.files_of(2)) == 2, "of this attempt nothing is removed"
    remote.storage.discard_unfinished(attempt=2)
    assert remote.files_of(2) == []
    assert remote.files_of(1) == whole


def test_temporary_files_are_gone(remote: StoredBytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    save_steps(remote.storage, 2, 1, 2)
    remote.change(remote.shards_of(2)[0], lambda content: content[:-1])
    assert resumed_step(remote.storage, 3)[0] == 1
    assert list(tmp_path.iterdir()) == []


def test_a_network_that_fails_is_a_failed_save(remote: StoredBytes, monkeypatch: pytest.MonkeyPatch) -> None:
    class NetworkError(Exception):
        """What a package raises that has errors of its own."""

    def main(rank: Rank) -> None:
        def fail(*_: object, **__: object) -> None:
            raise NetworkError("no route")

        saver = rank.saver(remote.storage)
        with monkeypatch.context() as patched:
            patched.setattr(remote.files, "put_file", fail)
            saver.save(1, state_of(1, rank.world), {"num_updates": 0})
            assert not saver.finish()
        saver.save(1, state_of(1, rank.world), {"num_updates": 0})
        assert saver.finish()
        saver.close()
        assert "NetworkError: no route" in rank.reports[0]

    run_ranks(1, main)
    assert resumed_step(remote.storage, 2)[0] == 1


@pytest.mark.parametrize("num_failures", [1, 3])
def test_a_publication_whose_answer_is_lost_stays_whole(
    remote: StoredBytes, monkeypatch: pytest.MonkeyPatch, num_failures: int
) -> None:
    """The manifest is there, and whoever put it does not know: its files must not be taken for those of a failure."""
    pipe_file, exists = remote.files.pipe_file, remote.files.exists
    failures = ["the network is away"] * num_failures

    def put(path: str, content: bytes) -> None:
        pipe_file(path, content)
        if path.endswith("manifest.json"):
            raise ConnectionError(failures.pop())

    def look(path: str) -> bool:
        if 0 < len(failures) < num_failures:
            raise ConnectionError(failures.pop())
        return bool(exists(path))

    def main(rank: Rank) -> None:
        saver = rank.saver(remote.storage)
        with monkeypatch.context() as patched:
            patched.setattr(remote.files, "pipe_file", put)
            patched.setattr(remote.files, "exists", look)
            saver.save(1, state_of(1, rank.world), {"num_updates": 0})
            assert saver.finish() == (num_failures < 3), rank.reports
        assert failures == []
        saver.close()
        assert f"try {num_failures} of 3 failed with ConnectionError: " in rank.reports[num_failures - 1]

    run_ranks(1, main)
    assert resumed_step(remote.storage, 2) == (1, [])
    remote.storage.discard_unfinished(attempt=2)
    assert resumed_step(remote.storage, 2) == (1, [])


def with_settings(url: str, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> StoredBytes:
    """The same place through another instance of s3fs, set up as by fsspec's config file."""
    monkeypatch.setitem(fsspec.config.conf, "s3", settings)
    return StoredBytes(url)


def test_what_another_process_does_is_seen_at_once(in_s3: StoredBytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """s3fs keeps listings: each instance those that it has seen."""
    other = with_settings(in_s3.url, {"skip_instance_cache": True}, monkeypatch)
    assert other.files is not in_s3.files
    for step in (1, 2, 3):
        save_steps(other.storage, 1, step, keep_last=2)
        assert in_s3.storage.steps() == [1, 2, 3][max(0, step - 2) : step]
        assert in_s3.storage.is_published(step)
    key = SaveKey(4, 1, 1)
    for num_parts in (1, 2):
        other.storage.write_part(key, f"rank-{num_parts}", write_something)
        assert in_s3.storage.num_parts(key) == len(in_s3.storage.receipts(key)) == num_parts
    other.storage.quarantine(3)
    assert in_s3.storage.steps() == [2]
    assert [path.rpartition("/")[2] for path in in_s3.storage.damaged()] == ["damaged-step-00000003"]


def write_something(path: Path) -> dict[str, object]:
    path.write_text("something")
    return {}


def test_large_files_go_and_come_in_parts(
    in_s3: StoredBytes, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = 5 * 2**20  # the least that S3 takes; s3fs has 50 MiB
    monkeypatch.setattr(s3fs.core, "calculate_chunksize", lambda size, chunksize: part)
    monkeypatch.setattr(s3fs.core, "MANAGED_COPY_THRESHOLD", part)
    monkeypatch.setattr(in_s3.files, "default_block_size", part)
    numel = 10**6
    save_steps(in_s3.storage, 1, 1, 2, numel=numel)
    (path,) = in_s3.shards_of(2)
    bucket, _, key = path.partition("/")
    etag = s3_server.client("s3").head_object(Bucket=bucket, Key=key)["ETag"]
    assert etag.endswith('-3"'), "12 MB in three parts"
    assert resumed_step(in_s3.storage, 2, numel) == (2, [])
    in_s3.change(in_s3.shards_of(2)[0], lambda content: content[: 2 * part] + b"?" + content[2 * part + 1 :])
    assert resumed_step(in_s3.storage, 2, numel)[0] == 1
    (kept,) = (path for path in in_s3.files.find(f"{in_s3.root}/damaged-step-00000002") if path.endswith("tensors"))
    assert in_s3.files.size(kept) > 2 * part


OF_OBJECTS = ("s3:ListBucket", "s3:GetObject", "s3:PutObject", "s3:DeleteObject")


def test_keys_that_may_touch_objects_alone_are_enough(
    in_s3: StoredBytes, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They may neither look at the bucket nor make one."""
    limited = with_settings(in_s3.url, s3_server.make_keys(*OF_OBJECTS), monkeypatch)
    save_steps(limited.storage, 2, 1, 2, 3, keep_last=2)
    assert limited.storage.steps() == [2, 3]
    in_s3.change(in_s3.shards_of(3)[0], lambda content: content[:-1])
    assert resumed_step(limited.storage, 2)[0] == 2
    save_steps(limited.storage, 2, 3)
    assert resumed_step(limited.storage, 2)[0] == 3


def test_keys_that_may_not_write_are_a_failed_save_that_says_so(
    in_s3: StoredBytes, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_steps(in_s3.storage, 1, 1)
    limited = with_settings(in_s3.url, s3_server.make_keys(*OF_OBJECTS[:2]), monkeypatch)
    assert resumed_step(limited.storage, 1) == (1, [])

    def main(rank: Rank) -> str:
        saver = rank.saver(limited.storage)
        saver.save(2, state_of(2, rank.world), {})
        assert not saver.finish()
        saver.close()
        return rank.reports[-1]

    (said,) = run_ranks(1, main)
    assert f"step 2 was not saved: PermissionError: {in_s3.url}: Access Denied. Training goes on" in said


def test_keys_that_may_not_delete_cost_space_and_no_more(
    in_s3: StoredBytes, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    limited = with_settings(in_s3.url, s3_server.make_keys(*OF_OBJECTS[:3]), monkeypatch)

    def main(rank: Rank) -> list[str]:
        saver = rank.saver(limited.storage, keep_last=1)
        for step in (1, 2):
            saver.save(step, state_of(step, rank.world), {"num_updates": step - 1})
        assert saver.finish()
        saver.close()
        return rank.reports

    ((said,),) = run_ranks(1, main)
    assert "step-00000001 could not be deleted: " in said
    assert "Access Denied" in said
    assert resumed_step(in_s3.storage, 1) == (2, [])
    assert in_s3.storage.steps() == [1, 2]


def test_a_location_is_a_folder_or_a_url(tmp_path: Path) -> None:
    assert isinstance(open_storage(tmp_path), LocalStorage)
    assert isinstance(open_storage(str(tmp_path)), LocalStorage)
    save_steps(open_storage(tmp_path.as_uri()), 1, 1)
    assert open_storage(tmp_path).steps() == [1]
    assert isinstance(open_storage("memory://x"), RemoteStorage)
    with pytest.raises(UserError, match=r"Protocol not known: nowhere"):
        open_storage("nowhere://bucket/run")
    with pytest.raises(UserError, match=r"`pip install adlfs`"):
        open_storage("abfs://bucket/run")
