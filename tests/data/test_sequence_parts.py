"""The parts of a row are the row: each token and each target once, in order, and behind them padding."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sft.data.collate import Batch, collate
from sft.data.sequence_parts import is_own_target, part_of
from sft.schema import Pack


def row(lengths: list[int], seed: int = 0) -> Batch:
    """One packed row of segments of these lengths; empty without any."""
    if not lengths:
        return collate([None])
    rng, total = np.random.default_rng(seed), sum(lengths)
    bounds = np.cumsum([0, *lengths])
    mask = rng.random(total) < 0.5
    mask[bounds[:-1]] = False
    return collate([Pack(3, np.arange(len(lengths)), rng.integers(1, 90, total), mask, bounds)])


@settings(max_examples=60)
@given(st.lists(st.integers(1, 9), max_size=6), st.integers(2, 8), st.integers(0, 99))
def test_the_parts_together_are_the_row(lengths: list[int], num_parts: int, seed: int) -> None:
    whole = row(lengths, seed)
    parts = [part_of(whole, place, num_parts) for place in range(num_parts)]
    length = whole.input_ids_BT.shape[1]
    (share,) = {part.input_ids_BT.shape[1] for part in parts}
    assert share >= 2
    assert share * num_parts - length < max(num_parts, 2 * num_parts - length + 1)
    for field in ("input_ids_BT", "position_ids_BT", "segment_ids_BT", "loss_mask_BT"):
        joined = torch.cat([getattr(part, field) for part in parts], 1)
        assert joined.dtype == getattr(whole, field).dtype
        assert torch.equal(joined[:, :length], getattr(whole, field))
        if field == "loss_mask_BT":
            assert not joined[:, length:].any(), "padding is learned"
    for place, part in enumerate(parts):
        assert part.num_parts == num_parts
        assert part.fed == whole.fed
        assert part.example_ids == whole.example_ids
        assert part.num_tokens == whole.num_tokens
        assert part.example_lengths.tolist() == lengths
        assert int(part.cu_seqlens[-1]) == share * num_parts
        assert part.max_seqlen == int(part.cu_seqlens.diff().max())
        own = is_own_target(whole, place, num_parts)
        assert torch.equal(part.targets_S, whole.targets_S[own])
        assert torch.equal(part.segments_S, whole.segments_S[own])
        assert torch.equal(part.predicted_from_S + place * share, whole.predicted_from_S[own])
        assert part.num_supervised_tokens == len(part.targets_S)
    assert sum(part.num_supervised_tokens for part in parts) == whole.num_supervised_tokens


def test_a_target_may_lie_behind_the_cut_before_it() -> None:
    whole = collate([Pack(0, np.arange(1), np.arange(10, 18), np.arange(8) > 0, np.array([0, 8]))])
    first, second = (part_of(whole, place, 2) for place in range(2))
    assert first.targets_S.tolist() == [11, 12, 13, 14]
    assert first.input_ids_BT.tolist() == [[10, 11, 12, 13]]
    assert second.targets_S.tolist() == [15, 16, 17]


def test_one_part_is_the_row_itself() -> None:
    whole = row([3, 4])
    assert part_of(whole, 0, 1) is whole


def test_an_empty_row_gives_each_rank_two_tokens() -> None:
    for place in range(4):
        part = part_of(collate([None]), place, 4)
        assert part.input_ids_BT.shape == (1, 2)
        assert part.num_tokens == 0
        assert len(part.example_lengths) == 0


@pytest.mark.parametrize("num_parts", [2, 3])
def test_padding_is_a_segment_of_its_own(num_parts: int) -> None:
    part = part_of(row([5, 2]), num_parts - 1, num_parts)
    assert part.cu_seqlens.tolist() == [0, 5, 7, {2: 8, 3: 9}[num_parts]]
    assert part.position_ids_BT[0, -1] == {2: 0, 3: 1}[num_parts]
