"""Reads stretches of arrays that lie in files, without keeping what was read.

A touched page of a map stays with the process until memory runs short. An array that is read here and there for weeks
would come to lie in memory as a whole, and so would that of every other rank of the node.
"""

import os
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from sft.errors import UserError

Stretch = Callable[[int, int], npt.NDArray[Any]]
"""From start and end, a copy of `array[start:end]`."""


def stretch_reader(array: npt.NDArray[Any]) -> Stretch:
    """A function that copies stretches of a one-dimensional array: past the map, where it is a mapped file.

    The file is opened once, as opening takes long on a network.

    Raises:
        UserError: (of the function) the file was cut off since it was mapped.
    """
    if not isinstance(array, np.memmap):
        return lambda start, end: np.array(array[start:end])
    path, size, first, dtype = array.filename, array.itemsize, array.offset, array.dtype
    descriptor = os.open(str(path), os.O_RDONLY)

    def read(start: int, end: int) -> npt.NDArray[Any]:
        found = np.empty(end - start, dtype)
        if os.preadv(descriptor, [found.data], first + start * size) != found.nbytes:
            raise UserError(f"{path} was cut off while it was in use. Delete its folder; it is made again.")
        return found

    weakref.finalize(read, os.close, descriptor)
    return read
