"""Artifacts that exist or do not: written aside, hashed, synced, then published by one rename.

A folder artifact is real when its `manifest.json` is there. `publish_folder` writes the manifest (with the size
and SHA-256 of every file) as the last thing into the folder that was written aside, syncs everything, and
renames the folder to its final name. What is not published is not there; what is published is never
overwritten.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

MANIFEST = "manifest.json"


def write_text(path: Path, text: str) -> None:
    """Write a small file so that readers see the old content or the new, never half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    with aside.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)
    _sync_folder(path.parent)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file that can be made again: whole or absent after a kill, but not synced against a power cut."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    aside.write_bytes(content)
    aside.replace(path)


def write_json(path: Path, content: Any) -> None:
    """`write_text` of indented JSON."""
    write_text(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """The content of a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def hash_file(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprint(content: Any) -> str:
    """The first 16 hex digits of the SHA-256 of `content` as canonical JSON."""
    text = json.dumps(content, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def is_published(folder: Path) -> bool:
    """Whether the folder is a finished artifact."""
    return (folder / MANIFEST).is_file()


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a published folder."""
    manifest: dict[str, Any] = read_json(folder / MANIFEST)
    return manifest


def publish_folder(
    aside: Path, final: Path, manifest: Mapping[str, Any], hashes: Mapping[str, str] | None = None
) -> None:
    """Publish the files in `aside` as the folder `final`, with `manifest` and each file's size and hash.

    Args:
        aside: the written folder, on the same file system as `final`.
        final: must not be published yet.
        manifest: what the artifact says of itself; the key `files` is added.
        hashes: SHA-256 of files that whoever wrote them knows already; the others are read again.

    Raises:
        FileExistsError: `final` is published already.
    """
    known = hashes or {}
    files = {}
    for path in sorted(p for p in aside.rglob("*") if p.is_file() and p != aside / MANIFEST):
        name = path.relative_to(aside).as_posix()
        files[name] = {"num_bytes": path.stat().st_size, "sha256": known.get(name) or hash_file(path)}
        _sync_file(path)
    write_json(aside / MANIFEST, {**manifest, "files": files})
    if is_published(final):
        raise FileExistsError(f"{final} is published already")
    # An unpublished folder of that name is what a killed process left behind.
    shutil.rmtree(final, ignore_errors=True)
    aside.rename(final)
    _sync_folder(final.parent)


def leave_receipt(path: Path) -> None:
    """Say beside a written file that it is whole, with its hash, for whoever publishes the folder."""
    write_json(path.with_name(f"{path.name}.receipt"), {"sha256": hash_file(path)})


def count_receipts(folder: Path) -> int:
    """How many files of the folder are whole so far."""
    return sum(1 for _ in folder.glob("*.receipt"))


def take_receipts(folder: Path) -> dict[str, str]:
    """The hash of each file with a receipt; the receipts are gone, so that they are not published."""
    hashes = {}
    for receipt in sorted(folder.glob("*.receipt")):
        hashes[receipt.stem] = str(read_json(receipt)["sha256"])
        receipt.unlink()
    return hashes


@contextmanager
def written_aside(final: Path, owner: str) -> Iterator[Path]:
    """An empty folder beside `final` to write into; `owner` keeps two writers apart. Gone if not published."""
    aside = final.with_name(f".{final.name}.{owner}.partial")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        yield aside
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _sync_file(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    # Without this a power cut may forget the rename although the file's content is safe.
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
