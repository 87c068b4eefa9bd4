"""Ranks that share micro-batches are consecutive; those that are left over share none, and count in no group."""

from hypothesis import given
from hypothesis import strategies as st

from sft.config_training import TrainConfig
from sft.step_plan import EMPTY_PACK, StepPlan
from sft.world import World


@given(st.integers(1, 40), st.integers(1, 9))
def test_groups_partition_the_ranks(size: int, sequence_parallel: int) -> None:
    worlds = [World(rank, size, sequence_parallel=sequence_parallel) for rank in range(size)]
    assert [rank for world in worlds if world.speaks_for_group for rank in world.sequence_ranks] == list(range(size))
    for world in worlds:
        assert world.rank == world.sequence_ranks[world.sequence_place]
        is_left = world.rank >= size - size % sequence_parallel
        assert (world.data_rank == world.data_size) == is_left
        assert len(world.sequence_ranks) == world.num_parts == (1 if is_left else sequence_parallel)
        assert TrainConfig(sequence_parallel=sequence_parallel).num_groups(size) == max(1, world.data_size)


@given(st.integers(1, 5), st.integers(1, 8), st.integers(1, 8))
def test_every_group_is_on_a_node_that_has_one_of_its_ranks(
    nodes: int, local_size: int, sequence_parallel: int
) -> None:
    size = nodes * local_size
    for rank in range(size):
        world = World(rank, size, rank % local_size, "", local_size, sequence_parallel=sequence_parallel)
        whole = {r // sequence_parallel for r in world.node_ranks if r // sequence_parallel < world.data_size}
        assert set(world.node_data_ranks) == whole


def test_a_rank_that_is_left_over_feeds_as_many_micro_batches_without_packs() -> None:
    steps = StepPlan(num_packs=6, packs_per_step=6, world_size=2, packs_per_micro_batch=2)
    assert steps.rank_packs(0, 2) == [[EMPTY_PACK] * 2] * len(steps.rank_packs(0, 0))
