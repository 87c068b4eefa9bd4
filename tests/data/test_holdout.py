"""Held out are whole prompts and whole tasks: nothing that is measured on was trained on."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sft.config import HoldoutConfig
from sft.data.holdout import check_tasks, held_out_examples
from sft.errors import UserError
from tests.data.stores import random_hashes, store_of

TASKS = ("chat", "code", "maths")
SHARES = st.floats(0, 1, exclude_max=True)


@st.composite
def stores(draw):
    """Few prompts, so that many examples share one, within and across tasks."""
    count = draw(st.integers(1, 60))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    prompts = random_hashes(draw(st.integers(1, 20)), seed=draw(st.integers(0, 2**32)))
    return store_of(np.full(count, 4), None, rng.integers(0, 3, count), rng.choice(prompts, count), TASKS)


HOLDOUTS = st.builds(HoldoutConfig, share=SHARES, tasks=st.lists(st.sampled_from(TASKS), unique=True).map(tuple))


@given(stores(), HOLDOUTS)
def test_equal_prompts_are_never_on_both_sides(store, holdout):
    held_out = held_out_examples(store, holdout)
    assert held_out.shape == (len(store),)
    assert not set(store.prompt_hashes[held_out].tolist()) & set(store.prompt_hashes[~held_out].tolist())


@given(stores(), HOLDOUTS)
def test_no_example_of_an_unseen_task_is_trained(store, holdout):
    trained = store.task_ids[~held_out_examples(store, holdout)]
    assert not {TASKS[i] for i in trained} & set(holdout.tasks)


@given(stores(), SHARES, SHARES)
def test_a_larger_share_holds_out_more_of_the_same(store, one, other):
    smaller, larger = (held_out_examples(store, HoldoutConfig(share=s)) for s in sorted((one, other)))
    assert not (smaller & ~larger).any()


@given(stores(), SHARES, st.integers(1, 59))
def test_the_side_of_a_record_does_not_depend_on_the_rest_of_the_data(store, share, count):
    part = store_of(np.full(count, 4)[: len(store)], None, store.task_ids[:count], store.prompt_hashes[:count], TASKS)
    holdout = HoldoutConfig(share=share)
    assert held_out_examples(part, holdout).tolist() == held_out_examples(store, holdout)[:count].tolist()


def test_the_share_is_that_of_the_prompts():
    store = store_of(np.full(20_000, 4), prompt_hashes=random_hashes(20_000, seed=1))
    for share in (0.0, 0.02, 0.5, 0.99):
        assert held_out_examples(store, HoldoutConfig(share=share)).mean() == pytest.approx(share, abs=0.01)
    assert not held_out_examples(store, HoldoutConfig(share=0.0)).any()


def test_an_unknown_task_is_named_with_a_near_one():
    with pytest.raises(
        UserError, match=r"data\.holdout\.tasks: there is no task 'mats' in the data\. Did you mean 'maths'\?"
    ):
        held_out_examples(store_of([4], tasks=TASKS), HoldoutConfig(tasks=("mats",)))
    with pytest.raises(
        UserError, match=r"stages\.0: there is no task 'zzz' in the data\. The tasks there: chat, code, maths\."
    ):
        check_tasks(["chat", "zzz"], list(TASKS), "stages.0")
    assert check_tasks(("code", "chat"), list(TASKS), "stages.0") == ["code", "chat"]
