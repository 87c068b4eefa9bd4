"""The table of losses: in a random order, whole or partly measured, never mixed up; damage is said."""

from pathlib import Path

import numpy as np
import pytest

from sft.difficulty.loss_table import Floats, LossTable
from sft.errors import UserError
from sft.schema import IntArray


def measured(rows: IntArray) -> Floats:
    """Losses that tell which row they are of."""
    return np.stack([rows + 2.0, np.full(len(rows), 2.0), rows + 1.0, rows + 4.0, np.ones(len(rows))], axis=1)


def test_each_example_is_measured_once_however_often_it_is_ended(tmp_path: Path) -> None:
    path, seen = tmp_path / "base.npy", []
    for num in (10, 10, 25, None):
        table = LossTable(path, 100, may_write=True)
        rows = table.missing(3, num)
        seen += rows.tolist()
        table.put(rows, measured(rows))
        del table
    assert sorted(seen) == list(range(100))
    assert sorted(seen[:10]) != list(range(10)), "the first ones are a sample"
    table = LossTable(path, 100)
    np.testing.assert_array_equal(table.column("loss"), (np.arange(100) + 2) / 2)
    np.testing.assert_array_equal(table.column("ifd"), (np.arange(100) + 1) / (np.arange(100) + 4))


def test_what_is_not_measured_is_not_known(tmp_path: Path) -> None:
    table = LossTable(tmp_path / "base.npy", 4, may_write=True)
    table.put(np.array([2]), np.array([[3.0, 1.0, 0.0, 0.0, 0.0]]))
    assert table.is_measured.tolist() == [False, False, True, False]
    assert np.isnan(table.column("loss")).tolist() == [True, True, False, True]
    assert np.isnan(table.column("ifd")).all(), "its only token has nothing before it when it stands alone"


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", b"no table"])
def test_a_damaged_table_is_one_message(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "base.npy"
    path.write_bytes(content)
    with pytest.raises(UserError, match="is damaged: .* Delete it"):
        LossTable(path, 4)


def test_a_table_of_other_examples_is_damaged(tmp_path: Path) -> None:
    LossTable(tmp_path / "base.npy", 4, may_write=True)
    with pytest.raises(UserError, match=r"\(4, 5\) in place of \(7, 5\)"):
        LossTable(tmp_path / "base.npy", 7)
