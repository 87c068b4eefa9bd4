"""The ranks' micro-batches of a step are, together, exactly the step, for every world size."""

from collections import Counter

import pytest

from sft.data.loader import StepLoader
from sft.data.planning.stage_plan import plan_stages
from sft.step_plan import StepPlan
from tests.data.stores import config_of, random_store


@pytest.fixture(scope="module")
def planned(tmp_path_factory):
    store = random_store(0, {"chat": 120, "code": 50, "maths": 15})
    stage = {"mixture": {"rates": "equal"}, "budget": {"epochs": 1}}
    (plan,) = plan_stages(config_of(tmp_path_factory.mktemp("run"), stage), store)
    return store, plan


@pytest.mark.parametrize("micro_packs", [1, 2, 3])
@pytest.mark.parametrize("world_size", [1, 2, 3, 4, 5])
def test_the_ranks_feed_the_step_and_nothing_else(planned, world_size, micro_packs):
    store, plan = planned
    packs_per_step = 5
    steps = StepPlan(len(plan), packs_per_step, world_size, micro_packs)
    assert len(plan) % packs_per_step, "the last step is to be a shorter one"
    loaders = [StepLoader(store, plan, steps, rank) for rank in range(world_size)]
    for step in range(steps.num_steps):
        expected = [i for pack in steps.step_packs(step) for i in plan.pack_examples(pack).tolist()]
        fed = [loader.micro_batches(step) for loader in loaders]
        # The ranks' collectives meet: all have the same number of micro-batches.
        assert {len(batches) for batches in fed} == {steps.micro_batches_per_step}
        batches = [batch for of_rank in fed for batch in of_rank]
        # Ranks take slices, so that rank after rank is the plan's own order.
        assert [i for batch in batches for i in batch.example_ids] == expected
        supervised = sum(batch.num_supervised_tokens for batch in batches)
        assert {loader.num_supervised_tokens(step) for loader in loaders} == {supervised}
        tokens = Counter(t for batch in batches if batch.example_ids for t in batch.input_ids_BT[0].tolist())
        assert tokens == Counter(t for i in expected for t in store.example(i).input_ids.tolist())


def test_the_steps_are_the_plan(planned):
    store, plan = planned
    steps = StepPlan(len(plan), 4, 3, 1)
    fed = Counter(
        example_id
        for step in range(steps.num_steps)
        for rank in range(3)
        for batch in StepLoader(store, plan, steps, rank).micro_batches(step)
        for example_id in batch.example_ids
    )
    assert fed == Counter(plan.example_ids.tolist())
