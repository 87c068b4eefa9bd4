"""Reads stretches of arrays that lie in files, without keeping what was read in memory.

A touched page of a memory map stays with the process until memory runs short. An array that is read here and there for
weeks would end up in memory whole, and so would the copy of every other rank of the node.
"""

import os
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from sft.errors import UserError

Stretch = Callable[[int, int], npt.NDArray[Any]]
"""(start, end) → a copy of `array[start:end]`."""


def stretch_reader(array: npt.NDArray[Any]) -> Stretch:
    """A function that copies stretches of a one-dimensional array; for a mapped file it reads the file, not the map.

    The file is opened once, because opening is slow on a network file system.

    Raises:
        UserError: (from the function) the file was cut off since it was mapped.
    """
    if not isinstance(array, np.memmap):
        return lambda start, end: np.array(array[start:end])
    path, size, first, dtype = array.filename, array.itemsize, array.offset, array.dtype
    descriptor = os.open(str(path), os.O_RDONLY)

    def read(start: int, end: int) -> npt.NDArray[Any]:
        found = np.empty(end - start, dtype)
        if os.preadv(descriptor, [found.data], first + start * size) != found.nbytes:
            raise UserError(f"{path} was cut off while it was in use. Delete its folder to make it again.")
        return found

    weakref.finalize(read, os.close, descriptor)
    return read
