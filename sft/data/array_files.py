"""Writes arrays into files piece after piece, so that no array has to be in memory whole."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt


@contextmanager
def written_array(
    path: Path, dtype: np.dtype[Any], shape: tuple[int, ...]
) -> Iterator[Callable[[npt.NDArray[Any]], None]]:
    """A function that writes the next rows of the array whose `.npy` file is made at `path`.

    The file is written, not mapped: pages of a mapped file would count as memory of the process.
    """
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(
            file, {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
        )
        first = file.tell()

        def write(rows: npt.NDArray[Any]) -> None:
            file.write(rows.astype(dtype, copy=False).tobytes())

        yield write
        assert file.tell() - first == dtype.itemsize * int(np.prod(shape)), f"{path}: not the rows of its header"
