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


@pytest.mark.parametrize("packs_per_micro_batch", [1, 2, 3])
@pytest.mark.parametrize("world_size", [1, 2, 3, 4, 5])
def test_the_ranks_feed_the_step_and_nothing_else(planned, world_size, packs_per_micro_batch):
    store, plan = planned
    packs_per_step = 5
    steps = StepPlan(len(plan), packs_per_step, world_size, packs_per_micro_batch)
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


@pytest.mark.parametrize("dropout_seed", [None, 5])
@pytest.mark.parametrize("packs_per_micro_batch", [1, 2])
@pytest.mark.parametrize("world_size", [1, 2, 3, 5])
def test_one_example_a_row_feeds_what_packs_feed(planned, world_size, packs_per_micro_batch, dropout_seed):
    store, plan = planned
    steps = StepPlan(len(plan), 5, world_size, packs_per_micro_batch)
    max_slots = packs_per_micro_batch * plan.manifest["inputs"]["pack_len_tokens"]
    for step in range(steps.num_steps):
        loaders = [StepLoader(store, plan, steps, rank) for rank in range(world_size)]
        packed = [loader.micro_batches(step) for loader in loaders]
        rows = [
            StepLoader(store, plan, steps, rank, None, "one_example", dropout_seed).micro_batches(step)
            for rank in range(world_size)
        ]
        # The ranks' collectives meet, and one of them has no empty batch.
        assert len({len(batches) for batches in rows}) == 1
        assert any(all(batch.example_ids for batch in batches) for batches in rows)
        for of_packs, of_rows in zip(packed, rows, strict=True):
            fed = [pack for batch in of_rows for pack in batch.fed]
            assert fed == [pack for batch in of_packs for pack in batch.fed], "as the ledger has it"
            for name in ("num_supervised_tokens", "num_tokens"):
                assert sum(getattr(b, name) for b in of_rows) == sum(getattr(b, name) for b in of_packs)
            ids = [i for batch in of_rows for i in batch.example_ids]
            assert Counter(ids) == Counter(i for batch in of_packs for i in batch.example_ids)
        for batch in (batch for batches in rows for batch in batches if batch.example_ids):
            assert batch.input_ids_BT.numel() <= max_slots
            lengths = batch.cu_seqlens.diff().tolist()
            for row, (example_id, length) in enumerate(zip(batch.example_ids, lengths, strict=True)):
                example = store.example(example_id)
                assert batch.input_ids_BT[row, :length].tolist() == example.input_ids.tolist()
                assert batch.loss_mask_BT[row, :length].tolist() == example.loss_mask.tolist()
                assert not batch.loss_mask_BT[row, length:].any()
            assert (batch.seed is None) == (dropout_seed is None)


def test_what_is_drawn_for_a_pack_is_of_no_world_size(planned):
    """Each batch is one pack or a part of it, and its seed is that of the pack, the step and the part."""
    store, plan = planned
    for layout in ("packed", "one_example"):
        drawn = []
        for world_size in (1, 2, 5):
            steps = StepPlan(len(plan), 5, world_size, 1)
            loaders = [StepLoader(store, plan, steps, rank, None, layout, 5) for rank in range(world_size)]
            batches = [b for step in range(steps.num_steps) for loader in loaders for b in loader.micro_batches(step)]
            drawn.append({batch.example_ids: batch.seed for batch in batches if batch.example_ids})
        assert drawn[0] == drawn[1] == drawn[2]
        assert len(set(drawn[0].values())) == len(drawn[0])
