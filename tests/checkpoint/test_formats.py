"""A checkpoint of another version of this program: the one before is read, others are named; none is called damaged."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from sft.atomic_files import check_files, hash_file, sign_manifest
from sft.checkpoint.formats import FORMAT_VERSION, OtherVersionError, read_checkpoint_manifest
from sft.checkpoint.local_storage import LocalStorage, checkpoint_path
from sft.checkpoint.rank_file import CheckpointReader
from sft.errors import UserError
from sft.verification.artifacts import check_artifacts, checkpoint_artifact
from sft.verification.findings import Findings
from sft.world import World
from tests.checkpoint.ranks import KEYS, Rank, resumed_step, run_ranks, save_steps, state_of, values_of
from tests.checkpoint.storages import StoredBytes


def save_in_format_1(folder: Path, step: int, size: int, numel: int = 37) -> Path:
    """What version 1 wrote: spans in each file, and a manifest without a hash of its own."""
    path = checkpoint_path(folder, step)
    path.mkdir(parents=True)
    for rank in range(size):
        state = state_of(step, World(rank, size), numel)
        save_file(
            {key: shard.values for key, shard in state.items()},
            path / f"rank-{rank:05d}-of-{size:05d}.safetensors",
            metadata={"spans": json.dumps({key: [shard.numel, shard.start] for key, shard in state.items()})},
        )
    files = {p.name: {"num_bytes": p.stat().st_size, "sha256": hash_file(p)} for p in sorted(path.iterdir())}
    about = {"kind": "checkpoint", "format": 1, "step": step, "world_size": size, "stage": "x", "plan": {}}
    (path / "manifest.json").write_text(json.dumps({**about, "files": files}, indent=1))
    return path


def rewrite(store: StoredBytes, step: int, **changes: Any) -> None:
    """Make it one of another version."""

    def changed(content: bytes) -> bytes:
        manifest = {**json.loads(content), **changes}
        del manifest["manifest_sha256"]
        return json.dumps(sign_manifest(manifest)).encode()

    store.change(store.manifest_of(step), changed)


@settings(deadline=None, max_examples=20)
@given(numel=st.integers(1, 40), saved=st.integers(1, 4), loaded=st.integers(1, 4))
def test_any_number_of_ranks_reads_what_version_1_wrote(
    tmp_path_factory: pytest.TempPathFactory, numel: int, saved: int, loaded: int
) -> None:
    folder = tmp_path_factory.mktemp("checkpoints")
    save_in_format_1(folder, 3, saved, numel)

    def main(rank: Rank) -> int:
        reader = rank.open(LocalStorage(folder))
        assert reader is not None
        with reader:
            part = state_of(3, rank.world, numel)
            for key in KEYS:
                start, stop = part[key].start, part[key].start + len(part[key].values)
                assert torch.equal(reader.read(key, start, stop), part[key].values)
            assert reader.manifest["num_updates"] == 3
            return reader.step

    assert run_ranks(loaded, main) == [3] * loaded


def test_a_whole_tensor_of_version_1_is_put_together(tmp_path: Path) -> None:
    with CheckpointReader(save_in_format_1(tmp_path, 3, 3)) as reader:
        assert torch.equal(reader.read("weight/master", 0, 37), values_of(3, "weight/master"))


def test_damage_of_a_checkpoint_of_version_1_is_noticed(tmp_path: Path) -> None:
    save_in_format_1(tmp_path, 1, 2)
    file = save_in_format_1(tmp_path, 2, 2) / "rank-00001-of-00002.safetensors"
    file.write_bytes(file.read_bytes()[:-1])

    def main(rank: Rank) -> tuple[int, list[str]]:
        reader = rank.open(LocalStorage(tmp_path))
        assert reader is not None
        with reader:
            return reader.step, rank.reports

    [(step, reports), _] = run_ranks(2, main)
    assert step == 1
    assert "step-00000002 is damaged: rank-00001-of-00002.safetensors has" in reports[0]


@pytest.mark.parametrize("content", [{}, {"files": {}}, {"step": 1}])
def test_a_manifest_of_version_1_that_lacks_something_is_damaged(tmp_path: Path, content: Mapping[str, Any]) -> None:
    save_in_format_1(tmp_path, 1, 1)
    path = save_in_format_1(tmp_path, 2, 1)
    (path / "manifest.json").write_text(json.dumps({"kind": "checkpoint", "format": 1, **content}))
    assert run_ranks(1, lambda rank: rank.open(LocalStorage(tmp_path)).step) == [1]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"format": FORMAT_VERSION + 1, "written_by": "sft 9.1"}, f"by sft 9.1, in format {FORMAT_VERSION + 1} of"),
        ({"format": 0}, "in format 0 of checkpoints; this version reads formats 1 to"),
    ],
)
def test_the_checkpoint_of_another_version_is_named_and_left_alone(
    store: StoredBytes, changes: dict[str, Any], said: str
) -> None:
    save_steps(store.storage, 2, 100, 200)
    rewrite(store, 200, **changes)
    before = {path: store.files.cat_file(path) for step in (100, 200) for path in store.files_of(step)}

    def main(rank: Rank) -> tuple[str, list[str]]:
        with pytest.raises(UserError) as caught:
            rank.open(store.storage)
        assert caught.value.is_everywhere
        return str(caught.value), rank.reports

    for text, reports in run_ranks(3, main):
        assert "step-00000200 was written " in text
        assert said in text
        assert "Use the version that wrote it" in text
        assert not reports, "it is no damage"
    assert store.storage.damaged() == []
    assert {path: store.files.cat_file(path) for step in (100, 200) for path in store.files_of(step)} == before


def test_a_version_that_signs_in_another_way_is_no_damage_either(tmp_path: Path) -> None:
    path = save_in_format_1(tmp_path, 1, 1)
    (path / "manifest.json").write_text(json.dumps({"kind": "checkpoint", "format": 7, "written_by": "sft 9.1"}))
    with pytest.raises(OtherVersionError, match=r"was written by sft 9\.1, in format 7"):
        read_checkpoint_manifest(path)


def test_what_is_written_says_by_which_version(tmp_path: Path) -> None:
    save_steps(LocalStorage(tmp_path), 1, 1)
    manifest = read_checkpoint_manifest(checkpoint_path(tmp_path, 1))
    assert manifest["written_by"].startswith("sft ")
    assert manifest["format"] == FORMAT_VERSION
    assert check_files(checkpoint_path(tmp_path, 1)) == []
    assert resumed_step(LocalStorage(tmp_path), 1)[0] == 1


def test_verify_hashes_those_of_version_1_and_says_whose_it_cannot(tmp_path: Path) -> None:
    save_in_format_1(tmp_path, 1, 2)
    save_steps(LocalStorage(tmp_path), 1, 2)
    rewrite(StoredBytes(str(tmp_path)), 2, format=FORMAT_VERSION + 1, written_by="sft 9.1")
    findings, storage = Findings(), LocalStorage(tmp_path)
    artifacts = [checkpoint_artifact(f"checkpoint {step}", storage, step) for step in (1, 2)]
    checked = check_artifacts(artifacts, findings, lambda *_: None)
    assert checked.num_files == 2
    assert checked.damaged == {storage.where(2)}
    [wrong] = findings.results()
    assert "checkpoint 2" in wrong.first[0]
    assert "was written by sft 9.1, in format 3" in wrong.first[0]
