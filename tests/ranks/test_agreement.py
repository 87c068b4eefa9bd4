"""What one rank cannot see, all ranks say, instead of waiting for that rank in a collective."""

import pytest

from sft.errors import UserError
from sft.ranks.agreement import raise_together
from sft.ranks.ranks import OneRank
from tests.distributed.launch import run_ranks


def test_one_rank_raises_its_own() -> None:
    raise_together(OneRank(), None)
    with pytest.raises(UserError, match="no store here"):
        raise_together(OneRank(), "no store here")


def test_the_error_of_one_rank_is_raised_on_all() -> None:
    assert run_ranks(2, "one_rank_misses_the_store", {}) == "node b sees nothing"
