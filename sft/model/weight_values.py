"""Finds weights that are not numbers before a machine is held for them: with them the first loss would be NaN too.

The files are read once, a part at a time, without torch. A float is not finite if all bits of its exponent are set.
"""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from sft.errors import UserError
from sft.model.weight_files import StoredTensor, finder, read_headers, weight_files

_EXPONENTS: dict[str, np.unsignedinteger[Any]] = {
    "BF16": np.uint16(0x7F80),
    "F16": np.uint16(0x7C00),
    "F32": np.uint32(0x7F800000),
    "F64": np.uint64(0x7FF0000000000000),
}
"""The bits of the exponent, by safetensors' name of the dtype. Tensors of other dtypes are skipped."""

_THREADS = 4
_MOST_SHOWN = 8


def check_values(path: str) -> None:
    """Check every weight of the model at `path`, if it is on this machine.

    Raises:
        UserError: some are NaN or infinite; their tensors are named.
    """
    tensors = read_headers(weight_files(path, finder(path, download=False)))
    with ThreadPoolExecutor(_THREADS) as threads:
        counts = dict(zip(tensors, threads.map(_num_not_finite, tensors.values()), strict=True))
    wrong = {name: count for name, count in counts.items() if count}
    if wrong:
        shown = [f"  {name}: {wrong[name]:,} of {_size(tensors[name]):,}" for name in sorted(wrong)[:_MOST_SHOWN]]
        shown += [f"  and {len(wrong) - _MOST_SHOWN:,} more tensors"] if len(wrong) > _MOST_SHOWN else []
        raise UserError(
            f"model: weights of {path} are not numbers (NaN or infinite), so nothing could be learned from them:\n"
            + "\n".join(shown)
            + "\nFetch the model again, or take one from before its training went wrong."
        )


def _num_not_finite(tensor: StoredTensor) -> int:
    exponent = _EXPONENTS.get(tensor.dtype)
    if exponent is None:
        return 0
    parts = (np.frombuffer(part, exponent.dtype) for part in tensor.read_parts())
    return sum(int(np.count_nonzero((bits & exponent) == exponent)) for bits in parts)


def _size(tensor: StoredTensor) -> int:
    return int(np.prod(tensor.shape, dtype=np.int64))
