"""Damage of any kind is noticed before it is trained on: told, quarantined, and the next older checkpoint is taken."""

import json
import random
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pytest

from sft.atomic_files import DamagedError, sign_manifest
from sft.checkpoint.local_storage import LocalStorage, checkpoint_path
from sft.checkpoint.rank_file import CheckpointReader
from sft.errors import UserError
from tests.checkpoint.ranks import KEYS, Rank, names, resumed_step, run_ranks, save_steps
from tests.checkpoint.storages import StoredBytes


def flip(content: bytes, bit: int) -> bytes:
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "has": lambda content: content[:-1],
    "bytes; the manifest says": lambda content: b"",
    "SHA-256 differs": lambda content: flip(content, 8 * len(content) - 5),
}


HERE_AND_AWAY = [("local", 1), ("memory", 1), ("s3", 3)]
"""(where, how many ranks read): a place gives the bytes, and what is wrong with them is found here."""


@pytest.mark.parametrize(
    ("store", "size", "words"),
    [*((place, size, "SHA-256 differs") for place, size in HERE_AND_AWAY), *(("local", 3, words) for words in DAMAGE)],
    indirect=["store"],
)
def test_a_damaged_file_is_told_and_the_older_checkpoint_taken(store: StoredBytes, words: str, size: int) -> None:
    save_steps(store.storage, 3, 100, 200)
    store.change(store.shards_of(200)[-1], DAMAGE[words])
    step, reports = resumed_step(store.storage, size)
    assert step == 100
    assert "step-00000200 is damaged: " in reports[0]
    assert "rank-00002-of-00003.safetensors" in reports[0]
    assert words in reports[0]
    assert "damaged-step-00000200" in reports[1]
    (aside,) = store.storage.damaged()
    assert aside.endswith("/damaged-step-00000200")
    assert store.storage.steps() == [100]
    assert resumed_step(store.storage, size) == (100, []), "it is told once"


def test_a_missing_file_and_a_second_damaged_one(store: StoredBytes) -> None:
    save_steps(store.storage, 2, 100, 200)
    for _ in range(2):
        store.files.rm_file(store.shards_of(200)[0])
        step, reports = resumed_step(store.storage, 3)
        assert step == 100
        assert "rank-00000-of-00002.safetensors is missing" in reports[0]
        save_steps(store.storage, 2, 200)
    assert [path.rpartition("/")[2] for path in store.storage.damaged()] == [
        "damaged-step-00000200",
        "damaged-step-00000200-2",
    ]
    assert resumed_step(store.storage, 2)[0] == 200


@pytest.mark.parametrize(("store", "seed"), [*(("local", seed) for seed in range(6)), ("s3", 0)], indirect=["store"])
def test_a_flipped_bit_anywhere_is_noticed(store: StoredBytes, seed: int) -> None:
    save_steps(store.storage, 2, 100, 200)
    draw = random.Random(seed)
    path = draw.choice([store.manifest_of(200), *store.shards_of(200)])
    store.change(path, lambda content: flip(content, draw.randrange(8 * len(content))))
    assert resumed_step(store.storage, 2)[0] == 100


def test_every_byte_of_the_manifest_counts(tmp_path: Path) -> None:
    save_steps(LocalStorage(tmp_path), 1, 1)
    path = checkpoint_path(tmp_path, 1) / "manifest.json"
    whole = path.read_bytes()
    draw = random.Random(0)
    for start in range(len(whole) - 1):
        path.write_bytes(flip(whole, 8 * start + draw.randrange(8)))
        with pytest.raises(DamagedError, match=r"manifest\.json: "):
            CheckpointReader(path.parent)


NO_MANIFESTS = [b"", b"{}", b"[1]", b"null", b"\xff\xfe", b'{"files": {}, "manifest_sha256": 1}']


@pytest.mark.parametrize(
    ("store", "content"), [*(("local", content) for content in NO_MANIFESTS), ("s3", b"\xff\xfe")], indirect=["store"]
)
def test_a_manifest_that_is_none(store: StoredBytes, content: bytes) -> None:
    save_steps(store.storage, 1, 100, 200)
    store.change(store.manifest_of(200), lambda _: content)
    step, reports = resumed_step(store.storage, 2)
    assert step == 100
    assert "is damaged: manifest.json" in reports[0]


@pytest.mark.parametrize(
    ("change", "words"), [({"step": 150}, "step is 150, not 200"), ({"kind": "model"}, "kind is 'model'")]
)
def test_a_manifest_of_something_else(store: StoredBytes, change: dict[str, Any], words: str) -> None:
    """A folder that was copied over another is whole in itself."""
    save_steps(store.storage, 1, 100, 200)

    def other(content: bytes) -> bytes:
        manifest = {**json.loads(content), **change}
        del manifest["manifest_sha256"]
        return json.dumps(sign_manifest(manifest)).encode()

    store.change(store.manifest_of(200), other)
    step, reports = resumed_step(store.storage, 1)
    assert step == 100
    assert words in reports[0]


def test_a_folder_without_its_manifest_was_published_once(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path)
    save_steps(storage, 2, 100, 200)
    (checkpoint_path(tmp_path, 200) / "manifest.json").unlink()
    step, reports = resumed_step(storage, 2)
    assert step == 100
    assert reports[0].endswith("step-00000200 is damaged: manifest.json is missing")
    assert names(tmp_path) == ["damaged-step-00000200", "step-00000100"]


def test_none_is_good(store: StoredBytes) -> None:
    save_steps(store.storage, 2, 100, 200)
    store.change(store.shards_of(100)[0], lambda content: content[:5])
    store.change(store.manifest_of(200), lambda content: b"?")

    def main(rank: Rank) -> str:
        with pytest.raises(UserError) as caught:
            rank.open(store.storage)
        return str(caught.value)

    for _ in range(2):
        for text in run_ranks(3, main):
            assert "step-00000200: manifest.json: it is not JSON" in text
            assert "rank-00000-of-00002.safetensors has 5 bytes; the manifest says" in text
            assert "Restore one of them from a backup, or delete all of them" in text
    assert store.storage.steps() == [100, 200], "none is moved: they are where a backup belongs"


def test_it_never_starts_over_beside_damaged_ones(store: StoredBytes) -> None:
    save_steps(store.storage, 1, 100, 200)
    store.change(store.manifest_of(200), lambda content: b"?")
    assert resumed_step(store.storage, 1)[0] == 100
    store.storage.delete(100)
    with pytest.raises(UserError, match="damaged-step-00000200: was damaged"):
        resumed_step(store.storage, 1)


def test_no_checkpoint_is_step_0(store: StoredBytes, tmp_path: Path) -> None:
    assert resumed_step(store.storage, 2) == (0, [])
    (tmp_path / ".step-00000100.attempt-0001-0001.partial").mkdir()
    (tmp_path / "step-by-step").mkdir()
    assert resumed_step(store.storage, 2) == (0, [])


class Late(LocalStorage):
    """A shared file system that shows a folder to this rank later than to others."""

    num_looks = 3

    def steps(self) -> list[int]:
        return []

    def is_published(self, step: int) -> bool:
        self.num_looks -= 1
        return self.num_looks < 0 and super().is_published(step)


@pytest.mark.parametrize("late", [0, 1])
def test_a_rank_waits_for_what_another_one_sees(tmp_path: Path, late: int) -> None:
    save_steps(LocalStorage(tmp_path), 2, 100)

    def main(rank: Rank) -> int:
        storage = Late(tmp_path) if rank.world.rank == late else LocalStorage(tmp_path)
        reader = rank.open(storage)
        assert reader is not None
        with reader:
            return reader.step

    assert run_ranks(2, main) == [100, 100]


def test_a_rank_that_never_sees_it_has_all_go_back(tmp_path: Path) -> None:
    save_steps(LocalStorage(tmp_path), 2, 100, 200)

    class Blind(LocalStorage):
        def is_published(self, step: int) -> bool:
            return step != 200 and super().is_published(step)

        def opened(self, step: int) -> AbstractContextManager[Path]:
            return nullcontext(tmp_path / "not there") if step == 200 else super().opened(step)

    def main(rank: Rank) -> int:
        reader = rank.open(LocalStorage(tmp_path) if rank.world.is_first else Blind(tmp_path), patience_seconds=0.3)
        assert reader is not None
        with reader:
            return reader.step

    assert run_ranks(2, main) == [100, 100]


def test_a_file_that_breaks_after_the_check_is_named(tmp_path: Path) -> None:
    save_steps(LocalStorage(tmp_path), 1, 1)
    (path,) = checkpoint_path(tmp_path, 1).glob("*.safetensors")
    path.write_bytes(path.read_bytes()[:100])
    with (
        CheckpointReader(path.parent) as reader,
        pytest.raises(DamagedError, match="rank-00000-of-00001.safetensors: "),
    ):
        reader.read(KEYS[0], 0, 1)


def test_ranks_of_another_number_check_every_file_between_them(tmp_path: Path) -> None:
    for broken in range(4):
        storage = LocalStorage(tmp_path / str(broken))
        save_steps(storage, 4, 100, 200)
        path = checkpoint_path(tmp_path / str(broken), 200) / f"rank-0000{broken}-of-00004.safetensors"
        path.write_bytes(flip(path.read_bytes(), 8 * 250))
        for size in (2, 3):
            assert resumed_step(storage, size)[0] == 100
