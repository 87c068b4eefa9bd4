"""Ranks partition each step, whatever their number, and the packs of a step do not depend on it."""

from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from sft.data.mapped_arrays import stretch_reader
from sft.step_plan import EMPTY_PACK, StepPlan

SLICED = st.builds(
    StepPlan,
    num_packs=st.integers(1, 200),
    packs_per_step=st.integers(1, 70),
    world_size=st.integers(1, 70),
    packs_per_micro_batch=st.integers(1, 9),
)
DEALT = st.builds(
    lambda plan, seed: replace(plan, costs=stretch_reader(np.random.default_rng(seed).integers(1, 9, plan.num_packs))),
    SLICED,
    st.integers(0, 9),
)
PLANS = SLICED | DEALT


def fed(plan: StepPlan, step: int) -> list[list[list[int]]]:
    return plan.dealt(step)


def real(micro_batches: list[list[int]]) -> list[int]:
    return [pack for micro_batch in micro_batches for pack in micro_batch if pack != EMPTY_PACK]


@settings(deadline=None)
@given(PLANS)
def test_the_steps_partition_the_stage(plan: StepPlan) -> None:
    packs = [pack for step in range(plan.num_steps) for pack in plan.step_packs(step)]
    assert packs == list(range(plan.num_packs))
    assert all(len(plan.step_packs(step)) == plan.packs_per_step for step in range(plan.num_steps - 1))
    assert len(plan.step_packs(plan.num_steps - 1)) > 0


@settings(deadline=None)
@given(PLANS)
def test_the_ranks_partition_every_step(plan: StepPlan) -> None:
    for step in range(plan.num_steps):
        packs = [pack for micro_batches in fed(plan, step) for pack in real(micro_batches)]
        assert sorted(packs) == list(plan.step_packs(step))


@settings(deadline=None)
@given(SLICED)
def test_ranks_take_slices_where_costs_are_not_known(plan: StepPlan) -> None:
    for step in range(plan.num_steps):
        packs = [pack for micro_batches in fed(plan, step) for pack in real(micro_batches)]
        assert packs == list(plan.step_packs(step))


@settings(deadline=None)
@given(PLANS, st.integers(1, 70), st.integers(1, 9))
def test_no_step_depends_on_the_world_size(plan: StepPlan, world_size: int, packs_per_micro_batch: int) -> None:
    other = StepPlan(plan.num_packs, plan.packs_per_step, world_size, packs_per_micro_batch)
    assert plan.num_steps == other.num_steps
    for step in range(plan.num_steps):
        mine = [pack for micro_batches in fed(plan, step) for pack in real(micro_batches)]
        theirs = [pack for micro_batches in fed(other, step) for pack in real(micro_batches)]
        assert sorted(mine) == sorted(theirs)


@settings(deadline=None)
@given(PLANS)
def test_all_ranks_run_the_same_number_of_equal_micro_batches(plan: StepPlan) -> None:
    for step in range(plan.num_steps):
        for micro_batches in fed(plan, step):
            assert len(micro_batches) == plan.micro_batches_per_step
            assert {len(micro_batch) for micro_batch in micro_batches} == {plan.packs_per_micro_batch}


@settings(deadline=None)
@given(SLICED)
def test_slices_are_equal_to_within_one_pack(plan: StepPlan) -> None:
    for step in range(plan.num_steps):
        sizes = [len(real(micro_batches)) for micro_batches in fed(plan, step)]
        assert max(sizes) - min(sizes) <= 1
        assert sizes == sorted(sizes, reverse=True)


@settings(deadline=None)
@given(PLANS)
def test_empty_packs_come_last_and_only_where_needed(plan: StepPlan) -> None:
    slots_a_pass = plan.world_size * plan.packs_per_micro_batch
    # One pass fewer could not hold the packs of a full step.
    assert (plan.micro_batches_per_step - 1) * slots_a_pass < plan.packs_per_step
    assert plan.micro_batches_per_step * slots_a_pass >= plan.packs_per_step
    for step in range(plan.num_steps):
        for micro_batches in fed(plan, step):
            for micro_batch in micro_batches:
                assert micro_batch[: len(real([micro_batch]))] == real([micro_batch])
            # No micro-batch is empty before one that is not.
            filled = [bool(real([micro_batch])) for micro_batch in micro_batches]
            assert filled == sorted(filled, reverse=True)


def test_the_example_of_the_module_is_true() -> None:
    plan = StepPlan(num_packs=6, packs_per_step=6, world_size=4, packs_per_micro_batch=1)
    assert fed(plan, 0) == [[[0], [1]], [[2], [3]], [[4], [EMPTY_PACK]], [[5], [EMPTY_PACK]]]
