"""An array that is written piece after piece is the file that numpy writes of the whole."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sft.data.array_files import written_array

DTYPES = st.sampled_from([np.uint16, np.int64, np.bool_])


@given(DTYPES, st.lists(st.integers(0, 5), max_size=6), st.sampled_from([(), (3,)]))
def test_the_pieces_make_the_file_of_the_whole(tmp_path_factory, dtype, sizes, row):
    folder = tmp_path_factory.mktemp("arrays")
    whole = np.arange(sum(sizes) * 3).reshape(-1, 3)[(slice(None), *([0] if not row else []))].astype(dtype)
    with written_array(folder / "pieces.npy", whole.dtype, whole.shape) as write:
        for piece in np.split(whole, np.cumsum(sizes)[:-1]) if sizes else []:
            write(piece.astype(np.int64))
    np.save(folder / "whole.npy", np.ascontiguousarray(whole))
    assert (folder / "pieces.npy").read_bytes() == (folder / "whole.npy").read_bytes()


def test_too_few_rows_are_an_error(tmp_path):
    with pytest.raises(AssertionError, match="not the rows"), written_array(tmp_path / "a.npy", np.dtype(int), (2,)):
        pass
