"""What is computed for many packs at a time is what is computed for one pack after another."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sft.data.planning.pack_plan import PackPlan
from sft.data.token_store import TokenStore
from sft.ledger import digest_of_packs, pack_digest
from sft.step_plan import StepPlan
from sft.verification import digests
from sft.verification.digests import digest_packs, digest_steps
from tests.data.stores import store_of

# Every length around the borders of bytes and words.
LENGTHS = [*range(2, 140), 511, 512, 513]
STORE = store_of(LENGTHS)


def plan_of(packs: list[list[int]]) -> PackPlan:
    """A plan in memory with these examples in its packs."""
    sizes = [len(examples) for examples in packs]
    numbers = [np.array([sum(LENGTHS[i] for i in examples) for examples in packs])] * 2
    return PackPlan(
        Path(), {}, np.array([i for e in packs for i in e]), np.concatenate([[0], np.cumsum(sizes)]), *numbers
    )


@given(st.lists(st.lists(st.integers(0, len(LENGTHS) - 1), min_size=1, max_size=6), min_size=1, max_size=12), st.data())
def test_a_stretch_of_packs_has_the_digests_of_its_packs(packs: list[list[int]], data: st.DataObject) -> None:
    plan = plan_of(packs)
    first = data.draw(st.integers(0, len(packs) - 1))
    stretch = range(first, data.draw(st.integers(first + 1, len(packs))))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(digests, "_LONG", data.draw(st.sampled_from([0, 100, 10_000])))
        found, supervised = digest_packs(plan, STORE, stretch)
    read = [plan.read_pack(pack_id, STORE) for pack_id in stretch]
    assert found.tolist() == [pack_digest(pack) for pack in read]
    assert supervised.tolist() == [int(pack.loss_mask.sum()) for pack in read]


def test_steps_have_the_digests_of_their_packs_in_blocks_of_any_size_and_in_other_processes(planned, monkeypatch):
    folder = planned.stage("broad").packs
    plan, store = PackPlan.open(folder), TokenStore.open(planned.store)
    steps = StepPlan(len(plan), 4, 1, 1)
    packs = [steps.step_packs(step) for step in (0, 1, 2, 5, 7)]
    expected = [
        (digest_of_packs(read), sum(int(pack.loss_mask.sum()) for pack in read))
        for read in ([plan.read_pack(i, store) for i in of_step] for of_step in packs)
    ]
    for most_packs, most_tokens in ((1, 1), (8, 10**9), (10**9, 1000), (10**9, 10**9)):
        monkeypatch.setattr(digests, "_MAX_BLOCK_PACKS", most_packs)
        monkeypatch.setattr(digests, "_MAX_BLOCK_TOKENS", most_tokens)
        assert list(digest_steps(folder, planned.store, packs)) == expected
    monkeypatch.setattr(digests, "_FEW_PACKS", 0)
    assert list(digest_steps(folder, planned.store, packs)) == expected
