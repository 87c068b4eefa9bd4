"""Reads a source's records, each with the location where a person can look it up.

    files ──read_blocks──▶ Block ──decode_block──▶ Record, or Rejected in its place

Cutting a source into blocks is cheap and happens in order; blocks can be decoded anywhere. The same content gives the
same blocks in every run. This module does not interpret the fields of a record.
"""

import hashlib
from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa

from sft.config import SourceConfig
from sft.config_sources import CsvConfig
from sft.data.reading.blocks import Block, Piece, Unreadable
from sft.data.reading.csv_files import cut_csv
from sft.data.reading.json_files import cut_json, decode_lines
from sft.data.reading.locations import SourceFile, find_files, is_on_hub
from sft.data.reading.tables import cut_arrow, cut_hub, cut_parquet, decode_rows, load_hub
from sft.errors import UserError
from sft.schema import Record, RecordLocation, Rejected
from sft.url_secrets import without_secrets

_READERS: dict[str, Callable[[SourceFile], Iterator[Piece]]] = {
    ".json": cut_json,
    ".jsonl": cut_json,
    ".ndjson": cut_json,
    ".parquet": cut_parquet,
    ".arrow": cut_arrow,
}
_CSV_ENDINGS = (".csv", ".tsv")
_KINDS = {
    str: "text",
    list: "a list",
    bool: "a boolean",
    int: "a number",
    float: "a number",
    type(None): "null",
}
_CHECKSUMS = ("md5Hash", "Content-MD5", "blob_id", "ETag", "etag")
"""The names that fsspec's file systems give to a checksum of a file's content, best first."""


def read_blocks(source: SourceConfig) -> Iterator[Block]:
    """The source, cut into blocks, in order.

    Raises:
        UserError: the source is missing, is of a kind that cannot be read, is damaged, or holds nothing. Where this
            shows only later in a file, the blocks before it have been yielded.
    """
    if is_on_hub(source):
        return _number_blocks(source, ((source.path, piece, piece.done) for piece in cut_hub(source)))
    return _number_blocks(source, _cut_files(source, _files_of(source)))


def decode_block(block: Block) -> Iterator[Record | Rejected]:
    """Every record of the block, in order: a `Record`, or a `Rejected` where it cannot be read."""
    for offset, number, value in _decode(block):
        if block.num_wanted is not None and offset >= block.num_wanted:
            return
        index, where = block.first_index + offset, block.where._replace(number=number)
        if isinstance(value, dict):
            yield Record(block.source, index, where, value)
        elif isinstance(value, Unreadable):
            yield Rejected(block.source, index, where, value.reason)
        else:
            reason = f"the record is {_KINDS[type(value)]}, not an object with fields"
            yield Rejected(block.source, index, where, reason)


def read_records(source: SourceConfig) -> Iterator[Record | Rejected]:
    """Every record of the source, in order.

    Raises:
        UserError: as `read_blocks`.
    """
    return (record for block in read_blocks(source) for record in decode_block(block))


def content_hash(source: SourceConfig) -> str:
    """Changes if and only if the content of the source changes: the bytes of its files, in their order.

    For a remote file it uses the checksum that the server keeps (an ETag, an MD5), or the bytes where there is none. A
    server may give the same bytes another ETag, as S3 does for an upload in other parts: that counts as other content.
    For a data set on the Hub it is the fingerprint that `datasets` computes.

    Raises:
        UserError: the source is missing or cannot be read.
    """
    if is_on_hub(source):
        return str(load_hub(source)._fingerprint)
    marks = [f"{file.ending}{file.compression} {_hash_file(file)}\n" for file in _files_of(source)]
    return hashlib.sha256("".join(marks).encode()).hexdigest()


def _files_of(source: SourceConfig) -> tuple[SourceFile, ...]:
    files = find_files(source)
    if source.csv is not None and not any(file.ending in _CSV_ENDINGS for file in files):
        raise UserError(f"source {source.name}: csv: is given, but {files[0].name} is not a CSV file. Remove it.")
    return files


def _cut_files(source: SourceConfig, files: tuple[SourceFile, ...]) -> Iterator[tuple[str, Piece, float]]:
    """Each piece, with its file's name and the share of all files that is read up to its end."""
    sizes = [file.num_bytes for file in files]
    # Where a server does not say how large a file is, all of them count the same.
    weights = [1 if None in sizes else size or 0 for size in sizes]
    for i, file in enumerate(files):
        is_csv = file.ending in _CSV_ENDINGS
        for piece in cut_csv(file, source.csv or CsvConfig()) if is_csv else _READERS[file.ending](file):
            done = (sum(weights[:i]) + weights[i] * piece.done) / max(sum(weights), 1)
            yield file.name, piece, done


def _number_blocks(source: SourceConfig, pieces: Iterator[tuple[str, Piece, float]]) -> Iterator[Block]:
    number = index = 0
    most = source.max_records
    for file, piece, done in pieces:
        wanted = None
        if most is not None:
            if index >= most:
                break
            wanted = most - index if index + piece.num_places > most else None
            done = max(done, min((index + piece.num_places) / most, 1.0))
        # A block of blank lines would be a useless task; its lines are still counted.
        if not isinstance(piece.content, bytes) or (piece.content and not piece.content.isspace()):
            where = RecordLocation(file, piece.first, piece.is_line)
            yield Block(source.name, number, index, where, piece.content, done, wanted)
            number += 1
        index += piece.num_places
    if number == 0:
        raise UserError(f"source {source.name}: {without_secrets(source.path)} holds no records")


def _decode(block: Block) -> Iterator[tuple[int, int, Any]]:
    """The offset of each record in the block, its number in the file, and its value."""
    content, first = block.content, block.where.number
    if isinstance(content, tuple):
        yield from ((offset, number, value) for offset, (number, value) in enumerate(content))
    elif isinstance(content, pa.Buffer):
        yield from ((offset, first + offset, value) for offset, value in decode_rows(content))
    else:
        yield from ((offset, first + offset, value) for offset, value in decode_lines(content))


def _hash_file(file: SourceFile) -> str:
    if file.filesystem:
        info = file.filesystem.info(file.path)
        for name in _CHECKSUMS:
            if info.get(name):
                return f"{name} {info[name]}"
    with file.open_stored() as stored:
        digest = hashlib.sha256()
        while content := stored.read(1 << 20):
            digest.update(content)
        return digest.hexdigest()
