"""Stretches of arrays, in memory and in files."""

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sft.data.mapped_arrays import stretch_reader
from sft.errors import UserError


@pytest.fixture(scope="module")
def arrays(tmp_path_factory: pytest.TempPathFactory) -> list[np.ndarray]:
    """The same numbers in memory and in files, of items of one, two and eight bytes."""
    numbers = np.random.default_rng(0).integers(0, 200, 500)
    found = []
    for dtype in (np.uint8, np.uint16, np.int64):
        path = tmp_path_factory.mktemp("arrays") / "array.npy"
        np.save(path, numbers.astype(dtype))
        found += [numbers.astype(dtype), np.load(path, mmap_mode="r")]
    return found


@given(st.integers(0, 500), st.integers(0, 500))
def test_a_stretch_is_a_copy_of_the_array_there(arrays: list[np.ndarray], start: int, length: int) -> None:
    end = min(start + length, 500)
    for array in arrays:
        stretch = stretch_reader(array)(start, end)
        assert stretch.dtype == array.dtype
        assert stretch.tolist() == array[start:end].tolist()
        before = array[start:end].copy()
        stretch[:] = 255  # torch warns of arrays that it cannot write to
        assert (array[start:end] == before).all()


def test_a_file_that_is_cut_off_while_it_is_open_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "array.npy"
    np.save(path, np.arange(1000))
    read = stretch_reader(np.load(path, mmap_mode="r"))
    os.truncate(path, path.stat().st_size - 8)
    assert read(0, 999).tolist() == list(range(999))
    with pytest.raises(UserError, match=r"array\.npy was cut off"):
        read(999, 1000)
