"""The rank that computes slowly is told from those that wait for it."""

from typing import Any

from tests.distributed.launch import run_ranks


def test_the_rank_that_computes_slowly_is_seen_by_all(workload: dict[str, Any]) -> None:
    first, second = run_ranks(2, "slow_rank", workload)
    assert 0 < 3 * first < second
