"""Reads a source's records, each with the place where a person can look it up.

JSON and JSON lines are read line by line, so that a broken one is named by file and line; CSV, Parquet, Arrow
and data sets on the Hub go through `datasets`. A row that cannot be read is a `Rejected`, in its place.
"""

import csv
import difflib
import gzip
import io
import json
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import datasets

from sft.atomic_files import hash_file
from sft.config import SourceConfig
from sft.errors import UserError
from sft.schema import Record, Rejected

_TABLE_READERS = {".csv": "csv", ".parquet": "parquet", ".arrow": "arrow"}
_SUFFIXES = (".json", ".jsonl", *_TABLE_READERS)


def read_records(source: SourceConfig) -> Iterator[Record | Rejected]:
    """Every record of the source, in order, as a `Record` or, where it cannot be read, a `Rejected`.

    Raises:
        UserError: the source is not there, or is not of a kind that can be read.
    """
    path = _local_file(source)
    if path is None or _kind(path) in _TABLE_READERS:
        return _read_table(source, path)
    return _read_json_lines(source, path) if _kind(path) == ".jsonl" else _read_json(source, path)


def content_hash(source: SourceConfig) -> str:
    """Changes when, and only when, the content of the source does."""
    path = _local_file(source)
    return hash_file(path) if path else str(_load_table(source, path)._fingerprint)


def _local_file(source: SourceConfig) -> Path | None:
    """The file of the source; None where it is a data set on the Hub."""
    path = Path(source.path).expanduser()
    if path.is_file():
        if _kind(path) not in _SUFFIXES:
            known = ", ".join(_SUFFIXES)
            raise UserError(f"source {source.name}: {path} ends in {_kind(path) or 'nothing'}; needed: {known}")
        return path
    if path.is_dir():
        raise UserError(f"source {source.name}: {path} is a folder; needed: a file, or the id of a data set on the Hub")
    # A Hub id is `owner/name` and never has a file's ending.
    if path.suffix in (*_SUFFIXES, ".gz") or source.path.count("/") != 1 or source.path.startswith((".", "/", "~")):
        beside = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        close = difflib.get_close_matches(path.name, beside, n=3)
        hint = f"; near it: {', '.join(close)}" if close else ""
        raise UserError(f"source {source.name}: there is no file {path}{hint}. Correct data.sources' path.")
    return None


def _kind(path: Path) -> str:
    return Path(path.stem).suffix if path.suffix == ".gz" else path.suffix


@contextmanager
def _open(source: SourceConfig, path: Path) -> Iterator[gzip.GzipFile | io.BufferedReader]:
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
            yield file
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"source {source.name}: {path} cannot be read: {error}") from error


def _read_json_lines(source: SourceConfig, path: Path) -> Iterator[Record | Rejected]:
    with _open(source, path) as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            where = f"{path}:{number}"
            try:
                fields = json.loads(line)
            except UnicodeDecodeError as error:
                yield Rejected(source.name, number - 1, where, f"invalid UTF-8 at byte {error.start} of the line")
            except json.JSONDecodeError as error:
                yield Rejected(source.name, number - 1, where, f"broken JSON: {error.msg} at column {error.colno}")
            except (ValueError, RecursionError) as error:  # a number of too many digits, brackets too deep
                yield Rejected(source.name, number - 1, where, f"broken JSON: {error}")
            else:
                yield _as_record(source, number - 1, where, fields)


def _read_json(source: SourceConfig, path: Path) -> Iterator[Record | Rejected]:
    with _open(source, path) as file:
        text = file.read()
    try:
        rows = json.loads(text)
    except UnicodeDecodeError as error:
        raise UserError(f"source {source.name}: {path}: invalid UTF-8 at byte {error.start}") from None
    except json.JSONDecodeError as error:
        if error.msg == "Extra data":  # one object a line, in a file that is called .json
            yield from _read_json_lines(source, path)
            return
        message = f"{path}:{error.lineno}: broken JSON: {error.msg} at column {error.colno}"
        raise UserError(f"source {source.name}: {message}") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"source {source.name}: {path}: broken JSON: {error}") from None
    if not isinstance(rows, list):
        raise UserError(f"source {source.name}: {path} holds a {type(rows).__name__}; needed: a list of records")
    for index, fields in enumerate(rows):
        yield _as_record(source, index, f"{path}, record {index + 1}", fields)


def _as_record(source: SourceConfig, index: int, where: str, fields: Any) -> Record | Rejected:
    if not isinstance(fields, dict):
        return Rejected(
            source.name, index, where, f"the record is a {type(fields).__name__}, not an object with fields"
        )
    return Record(source.name, index, where, fields)


def _read_table(source: SourceConfig, path: Path | None) -> Iterator[Record | Rejected]:
    for index, fields in enumerate(_load_table(source, path)):
        yield _as_record(source, index, f"{source.path}, record {index + 1}", fields)


def _csv_options(source: SourceConfig, path: Path) -> dict[str, Any]:
    """All columns are text: left to guess, the reader makes 7 of the answer 007, and nothing of the answer NA."""
    with _open(source, path) as file, io.TextIOWrapper(file, "utf-8-sig", newline="") as text:
        header: list[str] = next(csv.reader(text), [])
    features = datasets.Features({name: datasets.Value("string") for name in header})
    return {"features": features, "keep_default_na": False}


def _load_table(source: SourceConfig, path: Path | None) -> datasets.Dataset:
    datasets.disable_progress_bars()
    try:
        if path is None:
            return datasets.load_dataset(source.path, source.subset, split=source.split)
        options = _csv_options(source, path) if _kind(path) == ".csv" else {}
        return datasets.load_dataset(_TABLE_READERS[_kind(path)], data_files=str(path), split="train", **options)
    except UserError:
        raise
    except Exception as error:
        # `datasets` raises errors of many libraries here; all of them say that this source cannot be read.
        reason = " ".join(str(error.__cause__ or error).split())[:300]
        what = "the file" if path else "the data set on the Hub"
        raise UserError(f"source {source.name}: {what} {source.path} cannot be read: {reason}") from error
