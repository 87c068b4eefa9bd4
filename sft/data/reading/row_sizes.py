"""The size of each row of a table once it is unpacked: text that a dictionary or a run holds once counts in each row.

Only lengths are read, so nothing is unpacked.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Sizes = npt.NDArray[np.int64]

_VALUE_BYTES = 1
"""Added for each value, since a row with very many empty values is large too."""


def row_sizes(rows: pa.RecordBatch) -> Sizes:
    """The approximate size of each row in bytes: (num_rows,)."""
    sizes = np.zeros(rows.num_rows, dtype=np.int64)
    for column in rows.columns:
        sizes += _value_sizes(column)
    return sizes


def _value_sizes(array: pa.Array) -> Sizes:
    """The size of each value: (len(array),)."""
    kind, types = array.type, pa.types
    if isinstance(array, pa.ExtensionArray):
        return _value_sizes(array.storage)
    if types.is_dictionary(kind):
        inside = np.append(_value_sizes(array.dictionary), _VALUE_BYTES)  # the last is what a null refers to
        indices = pc.fill_null(array.indices.cast(pa.int64()), len(array.dictionary)).to_numpy(zero_copy_only=False)
        sizes: Sizes = inside[indices]
        return sizes
    if types.is_run_end_encoded(kind):
        places = np.arange(array.offset, array.offset + len(array))
        runs = np.searchsorted(array.run_ends.to_numpy(zero_copy_only=False), places, side="right")
        return _value_sizes(array.values)[runs]
    if types.is_string_view(kind) or types.is_binary_view(kind):
        # A view is four 32-bit numbers; the first is its length.
        lengths = np.frombuffer(array.buffers()[1], np.int32)[::4][array.offset : array.offset + len(array)]
        return np.where(array.is_valid().to_numpy(zero_copy_only=False), lengths, 0).astype(np.int64) + _VALUE_BYTES
    if types.is_struct(kind):
        fields = (array.field(i) for i in range(kind.num_fields))
        return sum((_value_sizes(field) for field in fields), np.full(len(array), _VALUE_BYTES, dtype=np.int64))
    if types.is_list(kind) or types.is_large_list(kind) or types.is_map(kind):
        offsets = array.offsets.to_numpy(zero_copy_only=False)
        return _sizes_between(array, offsets[:-1], offsets[1:])
    if types.is_list_view(kind) or types.is_large_list_view(kind):
        starts, lengths = (part.to_numpy(zero_copy_only=False) for part in (array.offsets, array.sizes))
        return _sizes_between(array, starts, starts + lengths)
    if types.is_fixed_size_list(kind):
        starts = (np.arange(len(array)) + array.offset) * kind.list_size
        return _sizes_between(array, starts, starts + kind.list_size)
    return _flat_sizes(array)


def _sizes_between(array: Any, starts: npt.NDArray[Any], ends: npt.NDArray[Any]) -> Sizes:
    """The sizes of lists whose items lie between `starts` and `ends` in the array of all items."""
    is_map = pa.types.is_map(array.type)
    items = [array.keys, array.items] if is_map else [array.values]
    sizes = np.full(len(starts), _VALUE_BYTES, dtype=np.int64)
    for each in items:
        if (width := _width(each.type)) is not None:
            sizes += (ends - starts) * (width + _VALUE_BYTES)  # no loop over the items: there may be very many
        else:
            before = np.concatenate([[0], np.cumsum(_value_sizes(each))])
            sizes += before[ends] - before[starts]
    return sizes


def _flat_sizes(array: Any) -> Sizes:
    if (width := _width(array.type)) is not None:
        return np.full(len(array), width + _VALUE_BYTES, dtype=np.int64)
    try:
        lengths = pc.fill_null(pc.binary_length(array), 0).to_numpy(zero_copy_only=False)
    except pa.ArrowNotImplementedError:  # a union: use the average
        return np.full(len(array), array.nbytes // max(len(array), 1) + _VALUE_BYTES, dtype=np.int64)
    sizes: Sizes = lengths.astype(np.int64) + _VALUE_BYTES
    return sizes


def _width(kind: pa.DataType) -> int | None:
    """Bytes of each value, where all values have the same size."""
    if pa.types.is_null(kind):
        return 0
    is_flat = pa.types.is_primitive(kind) or pa.types.is_decimal(kind) or pa.types.is_fixed_size_binary(kind)
    return kind.bit_width // 8 if is_flat else None
