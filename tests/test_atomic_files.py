"""What is published is whole and stays; what is not published is not there."""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sft.atomic_files import (
    MANIFEST,
    DamagedError,
    check_files,
    count_receipts,
    fingerprint,
    hash_file,
    is_published,
    leave_receipt,
    publish_folder,
    read_json,
    read_manifest,
    read_receipts,
    remove_receipts,
    sign_manifest,
    write_json,
    write_text,
    written_aside,
)

FILES = {"a.bin": b"\x00\xff" * 5000, "empty": b"", "inner/b.txt": "ä\n".encode()}


class Killed(BaseException):
    """Stands for the end of the process."""


def write_files(folder: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def publish(final: Path, files: dict[str, bytes] = FILES) -> None:
    with written_aside(final, "test") as aside:
        write_files(aside, files)
        publish_folder(aside, final, {"kind": "test"})


def read_files(folder: Path) -> dict[str, bytes]:
    found = (path for path in folder.rglob("*") if path.is_file() and path != folder / MANIFEST)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def test_a_published_folder_is_whole_and_alone(tmp_path: Path) -> None:
    final = tmp_path / "artifact"
    publish(final)
    assert is_published(final)
    assert read_files(final) == FILES
    assert list(tmp_path.iterdir()) == [final]


def test_the_manifest_holds_what_was_given_and_size_and_hash_of_every_file(tmp_path: Path) -> None:
    publish(tmp_path / "artifact")
    manifest = read_manifest(tmp_path / "artifact")
    assert manifest["kind"] == "test"
    assert manifest["files"] == {
        name: {"num_bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        for name, content in FILES.items()
    }


def test_hashes_that_are_known_are_taken_over(tmp_path: Path) -> None:
    with written_aside(tmp_path / "artifact", "test") as aside:
        write_files(aside, FILES)
        publish_folder(aside, tmp_path / "artifact", {}, hashes={"a.bin": "known"})
    files = read_manifest(tmp_path / "artifact")["files"]
    assert files["a.bin"]["sha256"] == "known"
    assert files["empty"]["sha256"] == hashlib.sha256(b"").hexdigest()


# Everything that reaches the disk for good goes through one of these: a kill just before each, and just after.
STEPS = ("fsync", "rename", "replace")


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("kill_at", range(12))
def test_killed_at_any_moment_it_is_published_whole_or_absent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kill_at: int, after: bool
) -> None:
    final = tmp_path / "artifact"
    calls: list[str] = []

    def deadly(owner: object, name: str) -> None:
        real = getattr(owner, name)

        def step(*arguments: object) -> object:
            calls.append(name)
            if len(calls) - 1 != kill_at:
                return real(*arguments)
            if after:
                real(*arguments)
            raise Killed

        monkeypatch.setattr(owner, name, step)

    deadly(os, "fsync")
    deadly(Path, "rename")
    deadly(Path, "replace")
    aside = tmp_path / ".artifact.test.partial"
    write_files(aside, FILES)  # no `written_aside` around it: a killed process does not clean up
    try:
        publish_folder(aside, final, {"kind": "test"})
    except Killed:
        whole = "rename" in calls[:-1] or (after and calls[-1] == "rename")
    else:
        whole = True
        assert kill_at >= len(calls), "so many steps there are, and each was killed at"
    monkeypatch.undo()
    assert is_published(final) == whole
    if whole:
        assert read_files(final) == FILES
        assert set(read_manifest(final)["files"]) == set(FILES)
    else:
        assert not final.exists()
        publish(final)
        assert read_files(final) == FILES
        assert list(tmp_path.iterdir()) == [final]


def test_the_kills_reach_every_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    for owner, name in ((os, "fsync"), (Path, "rename"), (Path, "replace")):
        real = getattr(owner, name)
        monkeypatch.setattr(owner, name, lambda *a, _real=real, _name=name: (calls.append(_name), _real(*a))[1])
    publish(tmp_path / "artifact")
    assert 5 <= len(calls) < 12
    before_rename = calls[: calls.index("rename")]
    assert before_rename.count("replace") == 1, "the manifest is there before the folder is"
    assert before_rename.count("fsync") > len(FILES), "every file is synced before, and the manifest"
    assert calls[-1] == "fsync", "the rename itself is synced"


def test_an_error_while_writing_leaves_nothing(tmp_path: Path) -> None:
    def write_half() -> None:
        with written_aside(tmp_path / "artifact", "test") as aside:
            write_files(aside, FILES)
            raise Killed

    with pytest.raises(Killed):
        write_half()
    assert list(tmp_path.iterdir()) == []


def test_what_is_published_is_never_overwritten(tmp_path: Path) -> None:
    final = tmp_path / "artifact"
    publish(final)
    before = {path: path.read_bytes() for path in final.rglob("*") if path.is_file()}
    with pytest.raises(FileExistsError, match="is published already"):
        publish(final, {"other": b"other"})
    assert {path: path.read_bytes() for path in final.rglob("*") if path.is_file()} == before


def test_a_stale_folder_at_the_final_place_is_not_published_and_gives_way(tmp_path: Path) -> None:
    final = tmp_path / "artifact"
    write_files(final, {"half": b"ha"})
    assert not is_published(final)
    publish(final)
    assert read_files(final) == FILES


def test_a_stale_folder_of_the_same_owner_is_emptied_and_that_of_another_is_left(tmp_path: Path) -> None:
    final = tmp_path / "artifact"
    with written_aside(final, "other") as other:
        write_files(other, {"theirs": b"theirs"})
        stale = tmp_path / ".artifact.test.partial"
        write_files(stale, {"half": b"ha"})
        with written_aside(final, "test") as aside:
            assert aside == stale
            assert list(aside.iterdir()) == []
        assert read_files(other) == {"theirs": b"theirs"}


def test_a_reader_never_sees_half_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "new" / "state.json"
    write_json(path, {"step": 1, "name": "Grüße"})
    before = path.read_bytes()
    assert before.endswith(b"\n")
    assert read_json(path) == {"step": 1, "name": "Grüße"}

    def killed(descriptor: int) -> None:
        raise Killed

    monkeypatch.setattr(os, "fsync", killed)
    with pytest.raises(Killed):
        write_text(path, "x" * 100_000)
    monkeypatch.undo()
    assert path.read_bytes() == before
    write_text(path, "after")
    assert path.read_text() == "after"


def test_a_file_is_hashed_by_its_bytes(tmp_path: Path) -> None:
    content = os.urandom(300_000)
    (tmp_path / "f").write_bytes(content)
    assert hash_file(tmp_path / "f") == hashlib.sha256(content).hexdigest()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
    max_leaves=8,
)


def reversed_keys(content: object) -> object:
    if isinstance(content, dict):
        return {key: reversed_keys(content[key]) for key in reversed(content)}
    return [reversed_keys(item) for item in content] if isinstance(content, list) else content


@settings(deadline=None)
@given(JSON)
def test_a_fingerprint_does_not_depend_on_the_order_of_keys(content: object) -> None:
    assert fingerprint(content) == fingerprint(reversed_keys(content))
    assert len(fingerprint(content)) == 16


@settings(deadline=None)
@given(JSON, JSON)
def test_fingerprints_are_equal_exactly_where_the_json_is(first: object, second: object) -> None:
    same = json.dumps(first, sort_keys=True) == json.dumps(second, sort_keys=True)
    assert (fingerprint(first) == fingerprint(second)) == same


def test_fingerprints_are_those_of_other_processes_and_versions() -> None:
    content = {"b": [1, 2.5, None], "a": {"ä": True}}
    code = f"from sft.atomic_files import fingerprint; print(fingerprint({content!r}))"
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    root = Path(__file__).resolve().parents[1]
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=root, env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    # Stores are found again by it: another value here means that every cache is prepared anew.
    assert run.stdout.strip() == fingerprint(content) == "dfe1715c146706dc"


@settings(deadline=None)
@given(st.dictionaries(st.text(max_size=3), JSON, max_size=4), st.data())
def test_a_manifest_reads_back_equal_and_a_changed_one_is_refused(
    content: dict[str, object], data: st.DataObject
) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        manifest = {**content, "files": {}}
        write_json(folder / MANIFEST, sign_manifest(manifest))
        assert read_manifest(folder) == manifest
        changed = {**read_json(folder / MANIFEST), data.draw(st.text(max_size=3)): data.draw(JSON)}
        write_json(folder / MANIFEST, changed)
        if json.dumps(changed, sort_keys=True) != json.dumps(sign_manifest(manifest), sort_keys=True):
            with pytest.raises(DamagedError, match="content is not what was written"):
                read_manifest(folder)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "it is not JSON"),
        (b"\xff", "it is not JSON"),
        (b"[]", "it has no files and no manifest_sha256"),
        (b'{"files": {}}', "it has no manifest_sha256"),
        (b'{"files": {}, "manifest_sha256": null}', "its content is not what was written"),
    ],
)
def test_a_damaged_manifest_is_named(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / MANIFEST).write_bytes(content)
    with pytest.raises(DamagedError) as caught:
        read_manifest(tmp_path)
    assert caught.value.path == tmp_path / MANIFEST
    assert caught.value.reason.startswith(reason)
    (problem,) = check_files(tmp_path)
    assert problem.startswith(f"{MANIFEST}: {reason}")


def test_what_is_wrong_with_files_is_said_in_words(tmp_path: Path) -> None:
    final = tmp_path / "artifact"
    publish(final)
    assert check_files(final) == []
    (final / "a.bin").write_bytes(b"\x01\xff" * 5000)
    (final / "empty").unlink()
    (final / "inner" / "b.txt").write_bytes(b"")
    wrong = {
        "a.bin": "a.bin: its content is not what was written (SHA-256 differs)",
        "empty": "empty is missing",
        "inner/b.txt": "inner/b.txt has 0 bytes; the manifest says 3",
    }
    assert check_files(final) == list(wrong.values())
    assert check_files(final, ["empty"]) == [wrong["empty"]]
    assert check_files(final, []) == []
    (final / "inner" / "b.txt").unlink()
    (final / "inner").rmdir()
    (final / "inner").write_text("a file where the folder was")
    (problem,) = check_files(final, ["inner/b.txt"])
    assert problem.startswith("inner/b.txt cannot be read: ")
    assert check_files(tmp_path / "nothing") == [f"{MANIFEST} is missing"]


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from("abc"), st.binary(min_size=1, max_size=40), min_size=1), st.data())
def test_a_flipped_bit_in_any_file_is_found(files: dict[str, bytes], data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        final = Path(folder) / "artifact"
        publish(final, files)
        name = data.draw(st.sampled_from(sorted(files)))
        changed = bytearray(files[name])
        bit = data.draw(st.integers(0, 8 * len(changed) - 1))
        changed[bit // 8] ^= 1 << bit % 8
        (final / name).write_bytes(changed)
        assert check_files(final) == [f"{name}: its content is not what was written (SHA-256 differs)"]


def test_a_receipt_says_what_was_written_and_is_not_published(tmp_path: Path) -> None:
    aside = tmp_path / "aside"
    write_files(aside, {"a.bin": b"abc", "b.bin": b""})
    leave_receipt(aside / "a.bin", {"spans": {"w": [1, 2]}})
    assert count_receipts(aside) == 1
    assert read_receipts(aside) == {
        "a.bin": {"num_bytes": 3, "sha256": hashlib.sha256(b"abc").hexdigest(), "spans": {"w": [1, 2]}}
    }
    remove_receipts(aside)
    assert sorted(path.name for path in aside.iterdir()) == ["a.bin", "b.bin"]
