"""Finds the files of a source: one file, a folder, a pattern, or a URL that fsspec knows.

The same path gives the same files in the same order, sorted by path. Messages and a `RecordLocation` never show the
password or the query of a URL. This module does not read the records of a file.
"""

import bz2
import glob
import gzip
import io
import lzma
import os
import posixpath
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import fsspec
import pyarrow as pa
from fsspec.implementations.local import LocalFileSystem

from sft.absolute_paths import RECORD_ENDINGS as ENDINGS
from sft.absolute_paths import may_be_hub_id, near_it
from sft.approval.own_files import why_not_a_source
from sft.config import SourceConfig
from sft.data.reading import blocks
from sft.data.reading.contents import HEAD_BYTES, find_compression, why_no_records
from sft.data.reading.data_set_metadata import Tree, is_metadata
from sft.data.reading.folders import fixed_part, match_files, once, walk_files
from sft.data.reading.layout import Kind, choose_files
from sft.errors import UserError
from sft.url_secrets import without_secrets

COMPRESSIONS: dict[str, Callable[[Any], Any]] = {
    ".gz": lambda raw: gzip.GzipFile(fileobj=raw),
    ".bz2": bz2.BZ2File,
    ".xz": lzma.LZMAFile,
    # Unlike zstandard's reader, this one reads all frames of a file, and tells a cut file from a complete one.
    ".zst": lambda raw: pa.CompressedInputStream(pa.PythonFile(raw, "r"), "zstd"),
}
_BUFFER_BYTES = 1 << 17
_MAX_METADATA_BYTES = 1 << 22


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
        """The ending of the file inside the compression, such as `.jsonl`."""
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
        """The bytes inside the compression, and a function that returns the share of the file that is read.

        Raises:
            UserError: the file cannot be read, ends before its compressed content does, or cannot hold records.
        """
        with self._open_unpacked() as (stream, raw, _):
            yield stream, lambda: self._share_read(stream, raw)

    @contextmanager
    def _open_unpacked(self) -> Iterator[tuple[io.BufferedReader, Any, bool]]:
        """The bytes inside the compression, the stored ones, and whether they are compressed."""
        with self.open_stored() as raw, ExitStack() as stack:
            stream = stack.enter_context(io.BufferedReader(raw, _BUFFER_BYTES))
            # The first bytes decide, since files get renamed. A file that is named as compressed has to be compressed.
            compression = find_compression(stream.peek(HEAD_BYTES)) or self.compression
            if compression:
                stream = io.BufferedReader(stack.enter_context(COMPRESSIONS[compression](stream)), _BUFFER_BYTES)
            if reason := why_no_records(stream.peek(HEAD_BYTES), self.ending):
                raise UserError(f"source {self.source}: {self.name} cannot be read: {reason}.")
            yield stream, raw, bool(compression)

    def _open(self) -> Any:
        if self.filesystem:
            return self.filesystem.open(self.path, "rb")
        self.check_is_file()
        return open(self.path, "rb", buffering=0)

    def check_is_file(self) -> None:
        """Refuse a file that can never be read to its end.

        Raises:
            UserError: it is a pipe, a socket or a device.
        """
        if not self.filesystem and os.path.exists(self.path) and not os.path.isfile(self.path):
            raise UserError(f"source {self.source}: {self.name} is a pipe, a socket or a device. Needed: a file.")

    def _share_read(self, stream: io.BufferedReader, raw: Any) -> float:
        if not stream.peek(1):
            return 1.0
        return min(raw.tell() / self.num_bytes, 1.0) if self.num_bytes else 0.0

    @contextmanager
    def local_copy(self) -> Iterator[str]:
        """The path of a plain local file with the content: this file, or a copy in the temporary folder.

        Raises:
            UserError: as `open`, or the copy would be much larger than any file of records is after decompression.
        """
        with self._open_unpacked() as (stream, raw, is_compressed):
            if not self.filesystem and not is_compressed:
                yield self.path
                return
            with tempfile.NamedTemporaryFile(suffix=self.ending) as copy:
                while content := stream.read(_BUFFER_BYTES):
                    copy.write(content)
                    if is_compressed and blocks.unpacks_too_far(copy.tell(), raw.tell()):
                        raise UserError(
                            f"source {self.source}: {self.name} unpacks to more than {copy.tell():,} bytes, more than "
                            "any table. Unpack it and see what it holds."
                        )
                copy.flush()
                yield copy.name


def split_endings(name: str) -> tuple[str, str]:
    """`a.jsonl.gz` → `.jsonl`, `.gz`; `A.JSONL` → `.jsonl` and the empty string."""
    path = Path(name.lower())
    if path.suffix in COMPRESSIONS:
        return Path(path.stem).suffix, path.suffix
    return path.suffix, ""


def is_on_hub(source: SourceConfig) -> bool:
    """Whether the path is the id of a data set on the Hub, `owner/name`."""
    return "/" in source.path and may_be_hub_id(source.path, "dataset")


class _Found(NamedTuple):
    """What a path leads to, keyed by paths relative to its folder, or to the part of a pattern before its wildcards."""

    kind: Kind
    files: dict[str, SourceFile]


def find_files(source: SourceConfig) -> tuple[SourceFile, ...]:
    """The files of a source that is not on the Hub, sorted by path, without hidden files and those of other splits.

    Raises:
        UserError: there is no file, none that can be read, the location cannot be reached, or `split`, `subset` or
            `revision` asks for something that is not there.
    """
    shown = without_secrets(source.path)
    place = f"source {source.name}: {shown}"
    if source.revision is not None:
        raise UserError(f"{place}: revision: {source.revision} is given, but only the Hub has revisions. Remove it.")
    with explained(source.name, shown):
        kind, files = _find_remote(source) if "://" in source.path else _find_local(source)
        for file in files.values():
            _check_name(file)
        known = {name: file for name, file in files.items() if file.ending in ENDINGS}
        if not known:
            raise _no_records(place, kind, files)
        names = frozenset(files)
        data = sorted(name for name in known if kind == "file" or not is_metadata(name, names))
        chosen = choose_files(source, place, kind, Tree(names, data, lambda name: _read_metadata(files[name])))
        if not chosen:
            raise _no_records(place, kind, files)
        found = sorted((known[name] for name in chosen), key=lambda file: file.path)
        if reason := why_not_a_source([file.path for file in found if not file.filesystem]):
            raise UserError(f"{place}: {reason}")
    local = {file.path: file for file in found if not file.filesystem}
    return tuple(local[path] for path in once(list(local))) if local else tuple(found)


def _check_name(file: SourceFile) -> None:
    if not file.name.isascii() and file.name.encode(errors="replace").decode() != file.name:
        name = os.fsencode(file.name).decode(errors="replace")
        raise UserError(f"source {file.source}: the name of {name} is not UTF-8; needed: another name")


def _no_records(place: str, kind: Kind, files: dict[str, SourceFile]) -> UserError:
    if kind == "file":
        (file,) = files.values()
        file.check_is_file()
        ending = "".join(split_endings(file.name)) or "nothing"
        return UserError(f"source {file.source}: {file.name} ends in {ending}; needed: {_needed()}")
    names = sorted(Path(name).name for name in files)
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    there = f"there are {', '.join(names[:5])}{more}" if names else "it is empty"
    return UserError(f"{place} holds no file of records: {there}; needed: {_needed()}")


def _read_metadata(file: SourceFile) -> bytes:
    with file.open_stored() as stored:
        return bytes(stored.read(_MAX_METADATA_BYTES))


def _find_local(source: SourceConfig) -> _Found:
    path = Path(source.path).expanduser()
    kind: Kind = "file"
    root = path.parent
    if path.is_dir():
        kind, root, found = "folder", path, list(walk_files(str(path)))
    elif path.exists():
        found = [str(path)]  # even where its name looks like a pattern
    else:
        found = match_files(str(path))
        kind, root = "pattern", Path(fixed_part(str(path)))
        if not found:
            raise _missing(source, near_it(path))
    # A broken link is found too; reading it says that it cannot be read.
    files = [SourceFile(source.name, n, n, os.path.getsize(n) if os.path.exists(n) else None) for n in found]
    return _Found(kind, {os.path.relpath(file.path, root): file for file in files})


def _find_remote(source: SourceConfig) -> _Found:
    shown = without_secrets(source.path)
    try:
        filesystem, root = fsspec.url_to_fs(source.path)
    except ImportError as error:
        reason = without_secrets(str(error))
        raise UserError(f"source {source.name}: {shown} needs a package that is not installed: {reason}") from None
    if isinstance(filesystem, LocalFileSystem):
        return _find_local(source.model_copy(update={"path": root}))
    # In an http URL a question mark begins the query; it is no wildcard.
    is_pattern = re.search(r"[*\[]" if source.path.startswith("http") else r"[*?\[]", root)
    kind: Kind = "pattern" if is_pattern else "folder"
    try:
        if is_pattern:
            found = filesystem.glob(root, detail=True)
        elif split_endings(shown)[0] in ENDINGS and (info := filesystem.info(root))["type"] == "file":
            kind, found = "file", {root: info}
        else:
            found = filesystem.find(root, detail=True)
    except FileNotFoundError as error:
        if error.__cause__:  # http could not reach the server
            raise _unreadable(source.name, shown, error.__cause__) from None
        found = {}
    if not found:
        raise _missing(source, "")
    # Files below a hidden folder are hidden, unless the path itself names that folder.
    start = len(root[: is_pattern.start()].rpartition("/")[0] if is_pattern else root)
    files = {
        path[start:].strip("/") or posixpath.basename(path): SourceFile(
            source.name,
            path,
            shown if path == root else without_secrets(filesystem.unstrip_protocol(path)),
            info.get("size"),
            filesystem,
        )
        for path, info in sorted(found.items())
        if info.get("type") != "directory" and "/." not in path[start:]
    }
    if list(found) == [root]:
        kind = "file"
    return _Found(kind, files)


def _missing(source: SourceConfig, hint: str) -> UserError:
    shown = without_secrets(source.path)
    what = "file that matches" if glob.has_magic(shown) else "file"
    return UserError(f"source {source.name}: there is no {what} {shown}{hint}. Correct data.sources' path.")


def _needed() -> str:
    return f"{', '.join(ENDINGS)}, or one of these with {', '.join(COMPRESSIONS)}"


@contextmanager
def explained(source: str, what: str) -> Iterator[None]:
    """Turn any error that the libraries below raise for a file into a message to the user."""
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
