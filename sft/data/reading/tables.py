"""Cuts Parquet files, Arrow files and data sets on the Hub into pieces of rows, and decodes such rows.

Files are read as they lie, a batch of rows at a time; no table is held in memory whole.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq

from sft.config import SourceConfig
from sft.data.reading import blocks
from sft.data.reading.blocks import Piece, Unreadable
from sft.data.reading.locations import SourceFile, explained


def cut_parquet(file: SourceFile) -> Iterator[Piece]:
    """Pieces of the rows of a Parquet file."""
    with explained(file.source, file.name), file.local_copy() as path, pq.ParquetFile(path) as parquet:
        metadata = parquet.metadata
        num_bytes = sum(metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups))
        batches = parquet.iter_batches(batch_size=_num_rows_in_block(num_bytes, metadata.num_rows))
        yield from _cut_batches(_with_shares(batches, metadata.num_rows))


def cut_arrow(file: SourceFile) -> Iterator[Piece]:
    """Pieces of the rows of an Arrow file, be it of Arrow's file format or of its stream format."""
    with explained(file.source, file.name), file.local_copy() as path, pa.memory_map(path) as mapped:
        try:
            reader = pa.ipc.open_file(mapped)
        except pa.ArrowInvalid:
            mapped.seek(0)
            batches = pa.ipc.open_stream(mapped)
            yield from _cut_batches((batch, mapped.tell() / mapped.size()) for batch in batches)
        else:
            num_batches = reader.num_record_batches
            yield from _cut_batches((reader.get_batch(i), (i + 1) / num_batches) for i in range(num_batches))


def cut_hub(source: SourceConfig) -> Iterator[Piece]:
    """Pieces of the rows of a data set on the Hub."""
    dataset = load_hub(source).with_format("arrow")
    with explained(source.name, f"the data set on the Hub {source.path}"):
        tables = dataset.iter(batch_size=blocks.BLOCK_RECORDS)
        batches = (batch for table in tables for batch in table.to_batches())
        yield from _cut_batches(_with_shares(batches, len(dataset)))


def load_hub(source: SourceConfig) -> Any:
    """The split of the data set, downloaded where it is not here yet. Code that comes with it never runs.

    Raises:
        UserError: there is no such data set, subset, split or revision, or the Hub cannot be reached.
    """
    datasets.disable_progress_bars()
    with explained(source.name, f"the data set on the Hub {source.path} (there is no file of that name here)"):
        return datasets.load_dataset(
            source.path, source.subset, split=source.split or "train", revision=source.revision
        )


def decode_rows(content: pa.Buffer) -> Iterator[tuple[int, Any]]:
    """The offset of each row, and its fields or an `Unreadable`."""
    table = pa.ipc.open_stream(content).read_all()
    try:
        rows = table.to_pylist()
    except (ValueError, OverflowError):  # text that is no UTF-8, a date that Python does not have
        rows = [_decode_row(table.slice(offset, 1)) for offset in range(table.num_rows)]
    yield from enumerate(rows)


def _decode_row(table: pa.Table) -> Any:
    for name, column in zip(table.column_names, table.columns, strict=True):
        try:
            column.to_pylist()
        except UnicodeDecodeError:
            return Unreadable(f"invalid UTF-8 in column {name}")
        except (ValueError, OverflowError) as error:
            return Unreadable(f"column {name} cannot be read: {error}")
    return table.to_pylist()[0]


def _num_rows_in_block(num_bytes: int, num_rows: int) -> int:
    return min(max(blocks.BLOCK_BYTES * num_rows // max(num_bytes, 1), 1), blocks.BLOCK_RECORDS)


def _with_shares(batches: Iterable[Any], num_rows: int) -> Iterator[tuple[Any, float]]:
    num_read = 0
    for batch in batches:
        num_read += batch.num_rows
        yield batch, num_read / num_rows


def _cut_batches(batches: Iterable[tuple[Any, float]]) -> Iterator[Piece]:
    """Pieces of about BLOCK_BYTES, whatever the size of the batches is that the rows come in.

    With each batch comes the share of the file that is read up to its end.
    """
    first, done = 1, 0.0
    num_rows, num_bytes = 0, 0
    waiting: list[Any] = []
    for part, share in _slices(batches):
        if waiting and (
            num_bytes + part.nbytes > blocks.BLOCK_BYTES or num_rows + part.num_rows > blocks.BLOCK_RECORDS
        ):
            yield Piece(_encode(waiting), first, num_rows, done, is_line=False)
            first += num_rows
            num_rows, num_bytes, waiting = 0, 0, []
        waiting.append(part)
        num_rows, num_bytes, done = num_rows + part.num_rows, num_bytes + part.nbytes, share
    if waiting:
        yield Piece(_encode(waiting), first, num_rows, 1.0, is_line=False)


def _slices(batches: Iterable[tuple[Any, float]]) -> Iterator[tuple[Any, float]]:
    before = 0.0
    for batch, share in batches:
        length = _num_rows_in_block(batch.nbytes, batch.num_rows)
        for start in range(0, batch.num_rows, length):
            part = batch.slice(start, length)
            yield part, before + (share - before) * (start + part.num_rows) / batch.num_rows
        before = share


def _encode(batches: list[Any]) -> pa.Buffer:
    """The rows as an Arrow stream: a slice of a table, pickled, would take the whole table along."""
    table = pa.Table.from_batches(batches).replace_schema_metadata(None)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()
