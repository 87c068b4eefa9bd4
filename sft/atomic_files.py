"""Artifacts that exist as a whole or not at all: written aside, hashed, synced, then published by one rename.

A folder is an artifact if its `manifest.json` is there. `publish_folder` writes the manifest last into the folder that
was written aside, with the size and SHA-256 of every file and a hash of its own content. It syncs everything, and
renames the folder to its final name. An unpublished artifact is not there. A published one is never overwritten, and
can be checked against its hashes.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

from sft.errors import UserError
from sft.progress import CHUNK_BYTES, Tell

MANIFEST = "manifest.json"

RECEIPT = ".receipt"
"""Ending that turns a file's name into that of its receipt."""

_OWN_HASH = "manifest_sha256"
_MOST_THREADS = 4


class DamagedError(UserError):
    """A file is not as it was written: `reason` says in words what is wrong at `path`."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}. It is damaged: restore it from a backup.")
        self.path = path
        self.reason = reason


def write_text(path: Path, text: str) -> None:
    """Write a small file so that readers see the old content or the new, never half of it."""
    write_lines(path, [text])


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """`write_text` of lines, each with its end, that need not be in memory together."""
    with opened_aside(path) as file:
        file.writelines(lines)


@contextmanager
def opened_aside(path: Path) -> Iterator[TextIO]:
    """A file to write text to; at the end of the block it replaces the one at `path`, if nothing was raised."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with _replaced(path) as aside, aside.open("w", encoding="utf-8") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Sync the folder's names to disk: a power cut may lose a new name although the file's content is safe."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def now_on_file_system(folder: Path) -> float:
    """The time of the clock that dates the files there (Unix time in seconds): it may be minutes off ours."""
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".now-", suffix=".partial") as file:
        return os.fstat(file.fileno()).st_mtime


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file that can be made again: whole or absent after a kill, but not safe from a power cut."""
    with _replaced(path) as aside:
        aside.write_bytes(content)


@contextmanager
def _replaced(path: Path) -> Iterator[Path]:
    """A file to write, which then replaces the other; if the disk is full, nothing of it is left."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield aside
        aside.replace(path)
    except OSError:
        with suppress(OSError):
            aside.unlink()
        raise


def write_json(path: Path, content: Any) -> None:
    """`write_text` of indented JSON; half of a pair of surrogates, which no file can hold, becomes its escape."""
    text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    write_text(path, text.encode("utf-8", "backslashreplace").decode())


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        FileNotFoundError: there is none.
        DamagedError: it is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DamagedError(path, f"it is not JSON ({error})") from error


def hash_file(path: Path, tell: Tell = lambda: None) -> str:
    """SHA-256 of a file's bytes, in hex."""
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        buffer = memoryview(bytearray(min(CHUNK_BYTES, max(1, path.stat().st_size))))
        while num_bytes := file.readinto(buffer):
            digest.update(buffer[:num_bytes])
            tell()
    return digest.hexdigest()


def fingerprint(content: Any) -> str:
    """The first 16 hex digits of the SHA-256 of `content` as canonical JSON."""
    return _hash_json(content)[:16]


def is_published(folder: Path) -> bool:
    """Whether the folder is a finished artifact."""
    return (folder / MANIFEST).is_file()


def sign_manifest(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest as it is written: with a hash over the rest of its content."""
    return {**manifest, _OWN_HASH: _hash_json(manifest)}


def is_signed(manifest: Mapping[str, Any]) -> bool:
    """Whether it was written with a hash over its content."""
    return _OWN_HASH in manifest


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a published folder.

    Raises:
        FileNotFoundError: the folder is not published.
        DamagedError: the manifest is not as it was written, or has no hash.
    """
    path = folder / MANIFEST
    manifest = read_json(path)
    keys = manifest.keys() if isinstance(manifest, dict) else set()
    if missing := {"files", _OWN_HASH} - keys:
        raise DamagedError(path, f"it has no {' and no '.join(sorted(missing))}")
    content: dict[str, Any] = {key: value for key, value in manifest.items() if key != _OWN_HASH}
    if _hash_json(content) != manifest[_OWN_HASH]:
        raise DamagedError(path, "its content is not what was written (SHA-256 differs)")
    return content


def check_files(folder: Path, names: Iterable[str] | None = None, tell: Tell = lambda: None) -> list[str]:
    """What is wrong with a published folder, in words; empty if all is as it was written.

    Args:
        folder: with its manifest, which is checked first.
        names: the files to check, of those in the manifest; all by default. Each is read whole.
        tell: called repeatedly, from threads.
    """
    try:
        files = read_manifest(folder)["files"]
    except DamagedError as error:
        return [f"{MANIFEST}: {error.reason}"]
    except FileNotFoundError:
        return [f"{MANIFEST} is missing"]
    except OSError as error:
        return [f"{MANIFEST} cannot be read: {error}"]
    return check_listed(folder, files, sorted(files) if names is None else names, tell)


def check_listed(
    folder: Path, files: Mapping[str, Mapping[str, Any]], names: Iterable[str], tell: Tell = lambda: None
) -> list[str]:
    """What is wrong with some of the files of a manifest's list, in words; see `check_files`."""
    # Hashing releases the interpreter's lock, so threads hash several files at the same time.
    with ThreadPoolExecutor(_MOST_THREADS) as threads:
        found = list(threads.map(lambda name: check_file(folder / name, name, files[name], tell), names))
    return [problem for problem in found if problem]


def check_file(path: Path, name: str, written: Mapping[str, Any], tell: Tell = lambda: None) -> str | None:
    """What is wrong with one file, in words; None if it is what the manifest says was `written`."""
    try:
        num_bytes = path.stat().st_size
        if num_bytes != written["num_bytes"]:
            return f"{name} has {num_bytes} bytes; the manifest says {written['num_bytes']}"
        if hash_file(path, tell) != written["sha256"]:
            return f"{name}: its content is not what was written (SHA-256 differs)"
    except FileNotFoundError:
        return f"{name} is missing"
    except OSError as error:
        return f"{name} cannot be read: {error}"
    return None


def publish_folder(
    aside: Path, final: Path, manifest: Mapping[str, Any], hashes: Mapping[str, str] | None = None
) -> None:
    """Publish the files in `aside` as the folder `final`, with `manifest` and each file's size and hash.

    Args:
        aside: the written folder, on the same file system as `final`.
        final: must not be published yet.
        manifest: the artifact's own description; the keys `files` and `manifest_sha256` are added.
        hashes: SHA-256 of files that are synced already (see `leave_receipt`); the others are read again.

    Raises:
        FileExistsError: `final` is published already.
    """
    known = hashes or {}
    files = {}
    for path in sorted(p for p in aside.rglob("*") if p.is_file() and p != aside / MANIFEST):
        name = path.relative_to(aside).as_posix()
        files[name] = {"num_bytes": path.stat().st_size, "sha256": known.get(name) or hash_file(path)}
        if name not in known:
            sync_file(path)
    write_json(aside / MANIFEST, sign_manifest({**manifest, "files": files}))
    if is_published(final):
        raise FileExistsError(f"{final} is published already")
    # An unpublished folder of that name is what a killed process left behind.
    shutil.rmtree(final, ignore_errors=True)
    aside.rename(final)
    sync_folder(final.parent)


def describe_file(path: Path, tell: Tell = lambda: None) -> dict[str, Any]:
    """What a manifest says of a file: its size in bytes and its hash."""
    return {"num_bytes": path.stat().st_size, "sha256": hash_file(path, tell)}


def leave_receipt(path: Path, about: Mapping[str, Any] | None = None, tell: Tell = lambda: None) -> None:
    """Record beside a written file that it is whole and on disk, for whoever publishes the folder.

    Args:
        path: the file; the receipt lies beside it.
        about: what the receipt says besides size and hash.
        tell: called repeatedly.
    """
    # Some file systems report a full disk only here, and only on the machine that wrote the file.
    sync_file(path)
    write_json(path.with_name(path.name + RECEIPT), {**describe_file(path, tell), **(about or {})})


def count_receipts(folder: Path) -> int:
    """How many files of the folder are whole so far."""
    return sum(1 for _ in folder.glob(f"*{RECEIPT}"))


def read_receipts(folder: Path) -> dict[str, dict[str, Any]]:
    """The receipt of each file that has one, by the file's name."""
    return {path.stem: read_json(path) for path in sorted(folder.glob(f"*{RECEIPT}"))}


def remove_receipts(folder: Path) -> None:
    """Remove the receipts, so that they are not published."""
    for path in folder.glob(f"*{RECEIPT}"):
        path.unlink()


@contextmanager
def written_aside(final: Path, owner: str) -> Iterator[Path]:
    """An empty folder beside `final` to write into; `owner` keeps two writers apart. Deleted if not published."""
    aside = final.with_name(f".{final.name}.{owner}.partial")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        yield aside
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _hash_json(content: Any) -> str:
    text = json.dumps(content, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def sync_file(path: Path) -> None:
    """Sync a file's content to disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
