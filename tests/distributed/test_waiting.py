"""How long ranks wait for each other is for the hang watch to judge, and it sees that a model is being loaded."""

from typing import Any

from tests.distributed.launch import run_ranks


def test_a_collective_does_not_give_up_by_itself_once_the_watch_judges() -> None:
    """Its own timeout would count the time in which its process was suspended."""
    for is_left in (False, True):
        assert run_ranks(2, "waits_after_its_timeout", {"is_left_to_the_watch": is_left}) is is_left


def test_loading_a_model_into_shards_is_seen_to_go_on(workload: dict[str, Any]) -> None:
    for world_size in (1, 2):
        before, after, num_parameters = run_ranks(world_size, "collectives_of_loading", workload)
        assert after - before >= num_parameters
