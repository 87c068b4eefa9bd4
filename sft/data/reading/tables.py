"""Cuts Parquet files, Arrow files and data sets on the Hub into pieces of rows, and decodes such rows.

Files are read a batch of rows at a time; no table is held in memory whole. Values that a dictionary holds once are
unpacked for one block of rows at a time.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sft.config import SourceConfig
from sft.data.reading import blocks
from sft.data.reading.arrow_messages import bodies, check_places
from sft.data.reading.blocks import Piece, Unreadable
from sft.data.reading.locations import SourceFile, explained
from sft.data.reading.parquet_footer import read_row_groups
from sft.data.reading.row_sizes import row_sizes
from sft.errors import UserError

_VALUE_BYTES = {"BOOLEAN": 1, "INT32": 4, "INT64": 8, "INT96": 12, "FLOAT": 4, "DOUBLE": 8, "BYTE_ARRAY": 4}
"""By Parquet's physical types; for a text, the size of its index into a dictionary."""
_CONVERSION_ERRORS = (ValueError, OverflowError, NotImplementedError)
"""Text that is not UTF-8 (a `ValueError`), a date that Python does not have."""


def cut_parquet(file: SourceFile) -> Iterator[Piece]:
    """Pieces of the rows of a Parquet file.

    Raises:
        UserError: it is damaged, names a column twice, or a few of its bytes unpack to more than memory should hold.
    """
    with explained(file.source, file.name), file.local_copy() as path:
        num_rows_in_batch, repeating = _look_at_parquet(file, path)
        with pq.ParquetFile(path, read_dictionary=repeating) as parquet:
            _check_columns(file.source, file.name, parquet.schema_arrow)
            batches = parquet.iter_batches(batch_size=num_rows_in_batch)
            yield from _cut_batches(_with_shares(batches, parquet.metadata.num_rows))


def _look_at_parquet(file: SourceFile, path: str) -> tuple[int, list[str]]:
    """How many rows to read at once, and the columns whose texts stay in their dictionaries."""
    metadata = pq.read_metadata(path)
    num_rows, num_bytes, num_rows_in_batch = metadata.num_rows, 0, blocks.BLOCK_RECORDS
    repeating = set()
    for i, group in enumerate(read_row_groups(Path(path))):
        for j, chunk in enumerate(group):
            column = metadata.schema.column(j)
            num_bytes += chunk.num_unpacked
            unpacked = chunk.num_unpacked
            if column.max_repetition_level:
                # The footer does not say how many values of a list column a row has: one row may have them all.
                unpacked = max(unpacked, chunk.num_values * _VALUE_BYTES.get(column.physical_type, column.length))
            if blocks.unpacks_too_far(unpacked, chunk.num_stored):
                raise UserError(
                    f"source {file.source}: {file.name}: {chunk.num_stored:,} bytes of the column {chunk.path} in row "
                    f"group {i + 1} unpack to {unpacked:,} bytes, which may not fit into memory. Write the file with "
                    "smaller row groups."
                )
            if chunk.has_dictionary and column.physical_type == "BYTE_ARRAY":
                repeating.add(chunk.path)
            if chunk.is_delta:
                # Each value may begin with all of the one before.
                most = blocks.MAX_UNPACKED_BYTES // 4 // max(chunk.num_unpacked, 1)
                num_rows_in_batch = max(min(num_rows_in_batch, most), 1)
    return min(num_rows_in_batch, _num_rows_in_block(num_bytes, num_rows)), sorted(repeating)


def cut_arrow(file: SourceFile) -> Iterator[Piece]:
    """Pieces of the rows of an Arrow file, in Arrow's file format or its stream format."""
    with explained(file.source, file.name), file.local_copy() as path, pa.memory_map(path) as mapped:
        for body in bodies(mapped):
            if blocks.unpacks_too_far(body.num_unpacked, body.num_stored):
                raise UserError(
                    f"source {file.source}: {file.name}: {body.num_stored:,} bytes of a batch of rows unpack to "
                    f"{body.num_unpacked:,} bytes, which may not fit into memory. Write smaller batches."
                )
        mapped.seek(0)
        try:
            reader = pa.ipc.open_file(mapped)
        except pa.ArrowInvalid:
            mapped.seek(0)
            batches = pa.ipc.open_stream(mapped)
            _check_columns(file.source, file.name, batches.schema)
            yield from _cut_batches((_checked(batch), mapped.tell() / mapped.size()) for batch in batches)
        else:
            _check_columns(file.source, file.name, reader.schema)
            num_batches = reader.num_record_batches
            yield from _cut_batches((_checked(reader.get_batch(i)), (i + 1) / num_batches) for i in range(num_batches))


def _checked(batch: pa.RecordBatch) -> pa.RecordBatch:
    for column in batch.columns:
        check_places(column)
    return batch


def cut_hub(source: SourceConfig) -> Iterator[Piece]:
    """Pieces of the rows of a data set on the Hub."""
    dataset = load_hub(source).with_format("arrow")
    _check_columns(source.name, source.path, dataset.features.arrow_schema)
    with explained(source.name, f"the data set on the Hub {source.path}"):
        tables = dataset.iter(batch_size=blocks.BLOCK_RECORDS)
        batches = (batch for table in tables for batch in table.to_batches())
        yield from _cut_batches(_with_shares(batches, len(dataset)))


def load_hub(source: SourceConfig) -> Any:
    """The split of the data set, downloaded if it is not here yet. Code that comes with it never runs.

    Raises:
        UserError: there is no such data set, subset, split or revision, or the Hub cannot be reached.
    """
    datasets.disable_progress_bars()
    with explained(source.name, f"the data set on the Hub {source.path} (there is no file of that name here)"):
        return datasets.load_dataset(
            source.path, source.subset, split=source.split or "train", revision=source.revision
        )


def decode_rows(content: pa.Buffer) -> Iterator[tuple[int, Any]]:
    """The offset of each row, and its fields or an `Unreadable`.

    A text that is not UTF-8 shows that the row is damaged. A value that Python cannot represent, such as a date after
    the year 9999, makes only its own field `Unreadable`: most often no format needs that field.
    """
    table = pa.ipc.open_stream(content).read_all()
    try:
        rows = table.to_pylist()
    except _CONVERSION_ERRORS:
        columns = [_decode_column(name, column) for name, column in zip(table.column_names, table.columns, strict=True)]
        rows = [_as_row(table.column_names, values) for values in zip(*columns, strict=True)]
    yield from enumerate(rows)


def _decode_column(name: str, column: pa.ChunkedArray) -> list[Any]:
    try:
        return list(column.to_pylist())
    except _CONVERSION_ERRORS:
        return [_decode_cell(name, cell) for cell in column]


def _decode_cell(name: str, cell: pa.Scalar) -> Any:
    try:
        return cell.as_py()
    except UnicodeDecodeError:
        return _BrokenText(f"invalid UTF-8 in column {name}")
    except _CONVERSION_ERRORS as error:
        return Unreadable(" ".join(str(error).split())[:200])


def _as_row(names: list[str], values: tuple[Any, ...]) -> Any:
    broken = next((value for value in values if isinstance(value, _BrokenText)), None)
    return dict(zip(names, values, strict=True)) if broken is None else Unreadable(str(broken))


class _BrokenText(str):
    """Stands in the place of a text that is not UTF-8; says why its row cannot be read."""


def _check_columns(source: str, name: str, fields: Iterable[pa.Field], inside: str = "") -> None:
    fields = list(fields)
    twice = [each for each, count in Counter(field.name for field in fields).items() if count > 1]
    if twice:
        there = f"the column {inside}" if inside else "it"
        raise UserError(f"source {source}: {name}: {there} has two fields {twice[0]}. Give each a name of its own.")
    for field in fields:
        nested = field.type.num_fields and not pa.types.is_union(field.type)
        if nested:
            children = [field.type.field(i) for i in range(field.type.num_fields)]
            _check_columns(source, name, children, f"{inside}.{field.name}" if inside else field.name)


def _num_rows_in_block(num_bytes: int, num_rows: int) -> int:
    return min(max(blocks.BLOCK_BYTES * num_rows // max(num_bytes, 1), 1), blocks.BLOCK_RECORDS)


def _with_shares(batches: Iterable[Any], num_rows: int) -> Iterator[tuple[Any, float]]:
    num_read = 0
    for batch in batches:
        num_read += batch.num_rows
        yield batch, num_read / num_rows


def _cut_batches(batches: Iterable[tuple[Any, float]]) -> Iterator[Piece]:
    """Pieces of about BLOCK_BYTES, however large the batches are.

    Each batch comes with the share of the file that is read up to its end. A row that is too long becomes a piece of
    its own, without its content.
    """
    first, num_rows, num_bytes = 1, 0, 0
    waiting: list[Any] = []
    before = done = 0.0
    for batch, share in batches:
        sizes = row_sizes(batch)
        ends = np.cumsum(sizes)
        start = 0
        while start < batch.num_rows:
            room = blocks.BLOCK_BYTES - num_bytes + int(ends[start] - sizes[start])
            end = min(int(np.searchsorted(ends, room, side="right")), start + blocks.BLOCK_RECORDS - num_rows)
            if end <= start and waiting:
                yield Piece(_encode(waiting), first, num_rows, done, is_line=False)
                first, num_rows, num_bytes, waiting = first + num_rows, 0, 0, []
                continue
            end = max(end, start + 1)
            done = before + (share - before) * end / batch.num_rows
            if sizes[start] > blocks.MAX_RECORD_BYTES:
                reason = f"the row has about {sizes[start]:,} bytes; at most {blocks.MAX_RECORD_BYTES:,} are read"
                yield Piece(((first, Unreadable(reason)),), first, 1, done, is_line=False)
                first += 1
            else:
                waiting.append(batch.slice(start, end - start))
                num_rows += end - start
                num_bytes += int(ends[end - 1] - ends[start] + sizes[start])
            start = end
        before = share
    if waiting:
        yield Piece(_encode(waiting), first, num_rows, 1.0, is_line=False)


def _encode(batches: list[Any]) -> pa.Buffer:
    """The rows as an Arrow stream: pickling a slice of a table would include the whole table."""
    table = pa.Table.from_batches(batches).replace_schema_metadata(None)
    # A dictionary would be sent whole with every block.
    table = table.cast(pa.schema([field.with_type(_without_dictionaries(field.type)) for field in table.schema]))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def _without_dictionaries(kind: pa.DataType) -> pa.DataType:
    def plain(field: pa.Field) -> pa.Field:
        return field.with_type(_without_dictionaries(field.type))

    if pa.types.is_dictionary(kind):
        return _without_dictionaries(kind.value_type)
    if pa.types.is_struct(kind):
        return pa.struct([plain(kind.field(i)) for i in range(kind.num_fields)])
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(plain(kind.value_field), kind.list_size)
    if pa.types.is_large_list(kind):
        return pa.large_list(plain(kind.value_field))
    if pa.types.is_list(kind):
        return pa.list_(plain(kind.value_field))
    if pa.types.is_map(kind):
        return pa.map_(plain(kind.key_field), plain(kind.item_field), kind.keys_sorted)
    return kind
