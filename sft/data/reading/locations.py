"""Finds the files of a source: one file, a folder, a pattern, or a URL that fsspec knows.

The same path gives the same files in the same order, sorted by path. What a message or a `Place` shows of a URL
never holds its password or its query. Which records a file holds is not looked at here.
"""

import bz2
import difflib
import glob
import gzip
import io
import lzma
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa

from sft.config import SourceConfig
from sft.errors import UserError
from sft.url_secrets import without_secrets

ENDINGS = (".json", ".jsonl", ".ndjson", ".csv", ".parquet", ".arrow")
COMPRESSIONS: dict[str, Callable[[Any], Any]] = {
    ".gz": lambda raw: gzip.GzipFile(fileobj=raw),
    ".bz2": bz2.BZ2File,
    ".xz": lzma.LZMAFile,
    # Unlike zstandard's reader, this one goes on behind a file's first frame, and tells a cut file from a whole one.
    ".zst": lambda raw: pa.CompressedInputStream(pa.PythonFile(raw, "r"), "zstd"),
}
_BUFFER_BYTES = 1 << 17


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file that holds records."""

    source: str
    """The name of the source."""
    path: str
    name: str
    """What people are shown: the path or URL, without secrets."""
    num_bytes: int | None
    """None where the server does not say."""
    filesystem: Any = field(default=None, compare=False)
    """fsspec's; None for a local file."""

    @property
    def ending(self) -> str:
        """Of the file inside the compression, such as `.jsonl`."""
        return split_endings(self.name)[0]

    @property
    def compression(self) -> str:
        """The ending of its compression, or the empty string."""
        return split_endings(self.name)[1]

    @contextmanager
    def open_stored(self) -> Iterator[Any]:
        """The bytes as they are stored."""
        with explained(self.source, self.name), self._open() as raw:
            yield raw

    @contextmanager
    def open(self) -> Iterator[tuple[io.BufferedReader, Callable[[], float]]]:
        """The bytes inside the compression, and a function that says which share of the file is read.

        Raises:
            UserError: the file cannot be read, or ends before its compressed content does.
        """
        with self.open_stored() as raw, ExitStack() as stack:
            inner = stack.enter_context(COMPRESSIONS[self.compression](raw)) if self.compression else raw
            stream = io.BufferedReader(inner, _BUFFER_BYTES)
            yield stream, lambda: self._share_read(stream, raw)

    def _open(self) -> Any:
        return self.filesystem.open(self.path, "rb") if self.filesystem else open(self.path, "rb", buffering=0)

    def _share_read(self, stream: io.BufferedReader, raw: Any) -> float:
        if not stream.peek(1):
            return 1.0
        return min(raw.tell() / self.num_bytes, 1.0) if self.num_bytes else 0.0

    @contextmanager
    def local_copy(self) -> Iterator[str]:
        """The path of a plain local file with the content: this file, or a copy in the temporary folder."""
        if not self.filesystem and not self.compression:
            yield self.path
            return
        with tempfile.NamedTemporaryFile(suffix=self.ending) as copy:
            with self.open() as (stream, _):
                shutil.copyfileobj(stream, copy)
            copy.flush()
            yield copy.name


def split_endings(name: str) -> tuple[str, str]:
    """`a.jsonl.gz` → `.jsonl`, `.gz`; `a.jsonl` → `.jsonl` and the empty string."""
    path = Path(name)
    if path.suffix in COMPRESSIONS:
        return Path(path.stem).suffix, path.suffix
    return path.suffix, ""


def is_on_hub(source: SourceConfig) -> bool:
    """Whether the path is the id of a data set on the Hub: `owner/name`, and nothing of that name is here."""
    return (
        re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", source.path) is not None
        and split_endings(source.path)[0] not in ENDINGS
        and not os.path.exists(source.path)
    )


def find_files(source: SourceConfig) -> tuple[SourceFile, ...]:
    """The files of a source that is not on the Hub, sorted by path; hidden ones are left out.

    Raises:
        UserError: there is none, none that can be read, or the place cannot be reached.
    """
    shown = without_secrets(source.path)
    with explained(source.name, shown):
        files = _find_remote(source) if "://" in source.path else _find_local(source)
    for file in files:
        if not file.name.isascii() and file.name.encode(errors="replace").decode() != file.name:
            name = os.fsencode(file.name).decode(errors="replace")
            raise UserError(f"source {source.name}: the name of {name} is not UTF-8; needed: another name")
    known = [file for file in files if file.ending in ENDINGS]
    if not known and len(files) == 1:
        ending = "".join(split_endings(files[0].name)) or "nothing"
        raise UserError(f"source {source.name}: {files[0].name} ends in {ending}; needed: {_needed()}")
    if not known:
        names = sorted(Path(file.name).name for file in files)
        more = f" and {len(names) - 5} more" if len(names) > 5 else ""
        there = f"there are {', '.join(names[:5])}{more}" if names else "it is empty"
        raise UserError(f"source {source.name}: {shown} holds no file of records: {there}; needed: {_needed()}")
    return tuple(sorted(_without_metadata(known), key=lambda file: file.path))


def _find_local(source: SourceConfig) -> list[SourceFile]:
    path = Path(source.path).expanduser()
    if path.is_dir():
        found = list(_walk(path))
    elif path.exists():
        found = [str(path)]  # even where its name looks like a pattern
    else:
        found = [name for name in glob.glob(str(path), recursive=True) if not os.path.isdir(name)]
        if not found:
            raise _missing(source, [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else [])
    # A link to nothing is found too, and said to be unreadable when it is read.
    return [SourceFile(source.name, n, n, os.path.getsize(n) if os.path.exists(n) else None) for n in set(found)]


def _walk(folder: Path) -> Iterator[str]:
    """All files below the folder that are not hidden. Links are followed, but into no folder twice."""

    def stop(error: OSError) -> None:
        raise error  # a folder that may not be looked into would be left out without a word

    seen = set()
    for root, folders, names in os.walk(folder, onerror=stop, followlinks=True):
        if (real := os.path.realpath(root)) in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (os.path.join(root, name) for name in names if not name.startswith("."))


def _find_remote(source: SourceConfig) -> list[SourceFile]:
    shown = without_secrets(source.path)
    try:
        filesystem, root = fsspec.url_to_fs(source.path)
    except ImportError as error:
        reason = without_secrets(str(error))
        raise UserError(f"source {source.name}: {shown} needs a package that is not installed: {reason}") from None
    # In an http URL a question mark is not a pattern's: the query is behind it.
    is_pattern = re.search(r"[*\[]" if source.path.startswith("http") else r"[*?\[]", root)
    try:
        if is_pattern:
            found = filesystem.glob(root, detail=True)
        elif split_endings(shown)[0] in ENDINGS and (info := filesystem.info(root))["type"] == "file":
            found = {root: info}
        else:
            found = filesystem.find(root, detail=True)
    except FileNotFoundError as error:
        if error.__cause__:  # what http says of a server that it cannot reach
            raise _unreadable(source.name, shown, error.__cause__) from None
        found = {}
    if not found:
        raise _missing(source, [])
    # Hidden is what lies below a hidden folder that the path itself does not name.
    start = len(root[: is_pattern.start()].rpartition("/")[0] if is_pattern else root)
    return [
        SourceFile(
            source.name,
            path,
            shown if path == root else without_secrets(filesystem.unstrip_protocol(path)),
            info.get("size"),
            filesystem,
        )
        for path, info in sorted(found.items())
        if info.get("type") != "directory" and "/." not in path[start:]
    ]


def _without_metadata(files: list[SourceFile]) -> list[SourceFile]:
    """All but what `datasets` writes about the tables beside it."""
    tables = {Path(file.path).parent for file in files if file.ending == ".arrow"}
    metadata = {str(folder / name) for folder in tables for name in ("dataset_info.json", "state.json")}
    return [file for file in files if file.path not in metadata]


def _missing(source: SourceConfig, beside: list[str]) -> UserError:
    shown = without_secrets(source.path)
    close = difflib.get_close_matches(Path(shown).name, beside, n=3)
    hint = f"; near it: {', '.join(close)}" if close else ""
    what = "file that matches" if glob.has_magic(shown) else "file"
    return UserError(f"source {source.name}: there is no {what} {shown}{hint}. Correct data.sources' path.")


def _needed() -> str:
    return f"{', '.join(ENDINGS)}, or one of these with {', '.join(COMPRESSIONS)}"


@contextmanager
def explained(source: str, what: str) -> Iterator[None]:
    """Turn what any of the many libraries below says of a file into a message to the user."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        # Not chained: such errors often quote a URL with its password.
        raise _unreadable(source, what, error) from None


def _unreadable(source: str, what: str, error: BaseException) -> UserError:
    reason = without_secrets(" ".join(str(error).split()))[:300] or type(error).__name__
    return UserError(f"source {source}: {what} cannot be read: {reason}")
