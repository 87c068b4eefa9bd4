"""Packs that are trained at the same time cost about the same; the costs alone decide who gets which."""

from itertools import permutations

import numpy as np
import pytest

from sft.dealing import deal
from sft.step_plan import StepPlan


def cost_of_step(costs: np.ndarray, ranks: list[list[list[int]]]) -> int:
    """Each micro-batch takes as long as the dearest rank's."""
    return sum(max(int(costs[packs].sum()) for packs in at_once) for at_once in zip(*ranks, strict=True))


@pytest.mark.parametrize("seed", range(20))
def test_with_one_pack_a_micro_batch_no_deal_is_better(seed: int) -> None:
    costs = np.random.default_rng(seed).integers(1, 30, 6)
    world_size = 2 + seed % 2
    ways = (
        sum(max(order[i : i + world_size]) for i in range(0, 6, world_size)) for order in permutations(costs.tolist())
    )
    assert cost_of_step(costs, deal(costs, world_size, 1)) == min(ways)


@pytest.mark.parametrize(("world_size", "each"), [(2, 1), (8, 1), (8, 4), (64, 2)])
def test_ranks_wait_less_than_with_slices(world_size: int, each: int) -> None:
    rng = np.random.default_rng(0)
    for num_micro_batches in (1, 2, 8):
        num_packs = world_size * each * num_micro_batches
        costs = (1000 + rng.pareto(2.0, num_packs) * 500).astype(np.int64)
        sliced = StepPlan(num_packs, num_packs, world_size, each).dealt(0)
        dealt = deal(costs, world_size, each)
        assert cost_of_step(costs, dealt) <= cost_of_step(costs, sliced)
        totals = [sum(int(costs[packs].sum()) for packs in of_rank) for of_rank in dealt]
        # No rank is ahead of another by more than the dearest micro-batch.
        assert max(totals) - min(totals) <= max(int(costs[packs].sum()) for of_rank in dealt for packs in of_rank)


def test_the_example_of_the_module_is_true() -> None:
    costs = np.array([9, 8, 3, 3, 2, 2, 2, 1])
    as_costs = [[[costs[packs].tolist() for packs in of_rank] for of_rank in deal(costs, 2, each)] for each in (1, 2)]
    assert as_costs[0] == [[[9], [3], [2], [1]], [[8], [3], [2], [2]]]
    assert as_costs[1] == [[[9, 1], [3, 2]], [[8, 2], [3, 2]]]
