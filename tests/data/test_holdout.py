"""Held out are whole prompts, tasks and sources: nothing that is measured on was trained on."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sft.config import HoldoutConfig
from sft.data.planning.holdout import check_tasks, held_out_examples
from sft.data.planning.trainable import trainable_examples, unseen_tasks
from sft.errors import UserError
from tests.data.stores import config_of, random_hashes, store_of

TASKS = ("chat", "code", "maths")
SOURCES = ["web", "books", "test set"]
SHARES = st.floats(0, 1, exclude_max=True)


@st.composite
def stores(draw):
    """Few prompts, so that many examples share one, within and across tasks."""
    count = draw(st.integers(1, 60))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    prompts = random_hashes(draw(st.integers(1, 20)), seed=draw(st.integers(0, 2**32)))
    store = store_of(np.full(count, 4), None, rng.integers(0, 3, count), rng.choice(prompts, count), TASKS)
    return replace(store, manifest={**store.manifest, "sources": SOURCES}, source_ids=rng.integers(0, 3, count))


def some_of(names):
    return st.lists(st.sampled_from(names), unique=True).map(tuple)


HOLDOUTS = st.builds(HoldoutConfig, share=SHARES, tasks=some_of(TASKS), sources=some_of(SOURCES))


@given(stores(), HOLDOUTS)
def test_equal_prompts_are_never_on_both_sides(store, holdout):
    held_out = held_out_examples(store, holdout)
    assert held_out.shape == (len(store),)
    assert not set(store.prompt_hashes[held_out].tolist()) & set(store.prompt_hashes[~held_out].tolist())


@given(stores(), HOLDOUTS)
def test_no_example_of_an_unseen_task_or_source_is_trained(store, holdout):
    trained = ~held_out_examples(store, holdout)
    assert not {TASKS[i] for i in store.task_ids[trained]} & set(holdout.tasks)
    assert not {SOURCES[i] for i in store.source_ids[trained]} & set(holdout.sources)


@given(stores(), some_of(TASKS), some_of(SOURCES))
def test_without_a_share_nothing_else_is_held_out_than_tasks_sources_and_their_prompts(store, tasks, sources):
    held_out = held_out_examples(store, HoldoutConfig(share=0.0, tasks=tasks, sources=sources))
    named = [TASKS[t] in tasks or SOURCES[s] in sources for t, s in zip(store.task_ids, store.source_ids, strict=True)]
    prompts = set(store.prompt_hashes[named].tolist())
    assert held_out.tolist() == [prompt in prompts for prompt in store.prompt_hashes.tolist()]


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


def test_a_task_is_unseen_unless_a_stage_trains_on_some_of_it(tmp_path):
    tasks = ("chat", "code", "maths", "poems", "bench")
    store = store_of(np.full(10, 4), None, np.arange(10) % 5, tasks=tasks)
    sources = np.where(np.arange(10) % 5 == 4, 1, 0)
    store = replace(store, manifest={**store.manifest, "sources": ["s", "bench"]}, source_ids=sources)
    data = {"sources": [{"name": n, "path": "p"} for n in ("s", "bench")]}
    holdout = {"share": 0.0, "tasks": ["code"], "sources": ["bench"]}
    first = {"name": "a", "budget": {"steps": 1}, "optimizer": {"lr": 1e-3}, "mixture": {"tasks": ["chat"]}}
    weighted = {**first, "name": "b", "mixture": {"rates": "weights", "weights": {"maths": 1.0}}}
    every = {**first, "name": "c", "mixture": {}}

    def unseen(*stages):
        return unseen_tasks(config_of(tmp_path, *stages, data={**data, "holdout": holdout}), store)

    assert unseen(first) == ("code", "maths", "poems", "bench")
    assert unseen(first, weighted) == ("code", "poems", "bench")
    assert unseen(first, every) == ("code", "bench")


def test_a_task_of_which_the_decontamination_leaves_nothing_is_unseen(tmp_path):
    tasks, length = ("chat", "copies"), 20
    # All of `copies` says what a held-out example of `chat` says.
    said = np.concatenate([np.arange(length), np.arange(100, 100 + length), np.arange(length), np.arange(length)])
    store = store_of(np.full(4, length), None, [0, 0, 1, 1], [0, 2**63, 2**63 + 1, 2**63 + 2], tasks)
    store = replace(store, tokens=said, token_keys=np.arange(2, 202, dtype=np.uint64))
    stage = {"name": "a", "budget": {"steps": 1}, "optimizer": {"lr": 1e-3}}

    def unseen(decontaminate):
        holdout = {"share": 0.1, "decontaminate": decontaminate}
        config = config_of(tmp_path, stage, data={"holdout": holdout})
        return trainable_examples(store, config.data.holdout).tolist(), unseen_tasks(config, store)

    assert unseen("report") == ([False, True, True, True], ())
    assert unseen("remove") == ([False, True, False, False], ("copies",))
