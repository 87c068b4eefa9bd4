"""What one rank cannot see, all ranks say, instead of waiting for that rank in a collective."""

import pytest

from sft.errors import UserError
from sft.training.agreement import raise_on_all_ranks
from tests.distributed.launch import run_ranks


def test_one_rank_raises_its_own() -> None:
    raise_on_all_ranks(None)
    with pytest.raises(UserError, match="no store here"):
        raise_on_all_ranks("no store here")


def test_the_error_of_one_rank_is_raised_on_all() -> None:
    assert run_ranks(2, "one_rank_misses_the_store", {}) == "node b sees nothing"
