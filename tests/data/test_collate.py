"""A micro-batch is its packs end to end; every world size feeds the same packs in the same step."""

from dataclasses import fields

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sft.data.collate import collate, collate_rows
from sft.schema import Pack


@st.composite
def packs(draw):
    lengths = draw(st.lists(st.integers(1, 9), min_size=1, max_size=6))
    total = sum(lengths)
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    mask = rng.random(total) < 0.5
    starts = np.concatenate([[0], np.cumsum(lengths)])
    mask[starts[:-1]] = False
    ids = rng.integers(0, 2**16, total, dtype=np.uint16)
    return Pack(draw(st.integers(0, 99)), rng.integers(0, 999, len(lengths)), ids, mask, starts)


@given(st.lists(packs() | st.none(), min_size=1, max_size=4))
def test_a_batch_is_its_packs_end_to_end_with_positions_that_restart(given_packs):
    real = [pack for pack in given_packs if pack is not None]
    if not real:
        return
    batch = collate(given_packs)
    assert batch.input_ids_BT.tolist() == [[int(i) for pack in real for i in pack.input_ids]]
    assert batch.loss_mask_BT.tolist() == [[bool(m) for pack in real for m in pack.loss_mask]]
    lengths = [int(n) for pack in real for n in np.diff(pack.cu_seqlens)]
    assert batch.position_ids_BT.tolist() == [[i for n in lengths for i in range(n)]]
    assert batch.cu_seqlens.tolist() == [sum(lengths[:i]) for i in range(len(lengths) + 1)]
    assert batch.max_seqlen == max(lengths)
    assert batch.example_ids == tuple(int(i) for pack in real for i in pack.example_ids)
    assert batch.num_supervised_tokens == sum(int(pack.loss_mask.sum()) for pack in real)
    assert batch.num_tokens == sum(lengths)
    learned = [
        (i, int(s)) for i, s in enumerate(np.repeat(np.arange(len(lengths)), lengths)) if batch.loss_mask_BT[0, i]
    ]
    assert batch.targets_S.tolist() == [int(batch.input_ids_BT[0, i]) for i, _ in learned]
    assert batch.predicted_from_S.tolist() == [i - 1 for i, _ in learned]
    assert batch.segments_S.tolist() == [segment for _, segment in learned]
    # No segment's first token is learned: the shift would predict it from the segment before.
    assert not batch.loss_mask_BT[0, batch.cu_seqlens[:-1].long()].any()


def test_dtypes_are_those_that_the_model_takes():
    batch = collate(
        [Pack(0, np.array([1]), np.array([1, 65_535], np.uint16), np.array([False, True]), np.array([0, 2]))]
    )
    assert batch.input_ids_BT.dtype == batch.position_ids_BT.dtype == batch.targets_S.dtype == torch.int64
    assert batch.loss_mask_BT.dtype == torch.bool
    assert batch.cu_seqlens.dtype == torch.int32
    assert batch.input_ids_BT.tolist() == [[1, 65_535]]


@given(packs(), st.integers(1, 60))
def test_in_rows_of_one_example_the_same_targets_are_found(pack, max_slots):
    whole, found = collate([pack]), []
    for batch in collate_rows([pack], max_slots):
        ids = batch.input_ids_BT.flatten()
        assert ids[batch.predicted_from_S + 1].equal(batch.targets_S)
        examples = [batch.example_ids[i] for i in batch.segments_S]
        positions = batch.position_ids_BT.flatten()[batch.predicted_from_S].tolist()
        found += list(zip(examples, positions, batch.targets_S.tolist(), strict=True))
        assert len(batch.targets_S) == batch.num_supervised_tokens
    examples = [whole.example_ids[i] for i in whole.segments_S]
    positions = whole.position_ids_BT[0, whole.predicted_from_S].tolist()
    assert sorted(found) == sorted(zip(examples, positions, whole.targets_S.tolist(), strict=True))


@pytest.mark.parametrize("count", [1, 3])
def test_an_empty_micro_batch_runs_but_weighs_nothing(count):
    batch = collate([None] * count)
    assert batch.input_ids_BT.shape == batch.position_ids_BT.shape == batch.loss_mask_BT.shape
    assert batch.input_ids_BT.shape[0] == 1
    assert batch.input_ids_BT.shape[1] > 1
    assert batch.cu_seqlens.tolist() == [0, batch.input_ids_BT.shape[1]]
    assert not batch.loss_mask_BT.any()
    assert (batch.num_supervised_tokens, batch.num_tokens, batch.example_ids) == (0, 0, ())


def test_the_same_device_needs_no_copy():
    batch = collate([None])
    assert batch.to(torch.device("cpu")) is batch
    moved = batch.to(torch.device("meta"))
    tensors = {
        f.name: getattr(moved, f.name) for f in fields(moved) if isinstance(getattr(moved, f.name), torch.Tensor)
    }
    assert {name for name, tensor in tensors.items() if tensor.device.type != "meta"} == {"loss_mask_BT"}


def test_all_that_the_model_needs_is_pinned(monkeypatch):
    batch, pinned = collate([None]), []
    if not torch.cuda.is_available():
        monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: pinned.append(tensor) or tensor.clone())
    copy = batch.pin()
    assert len(pinned) in (0, 7)
    assert copy.input_ids_BT.equal(batch.input_ids_BT)
    assert copy.example_ids == batch.example_ids
