"""Attention inside each segment, against float64 with all scores of the row written out."""

import pytest
import torch
from torch import Tensor, nn

from sft.model import segment_attention
from sft.model.attention import packed_attention
from sft.model.segment_attention import Scores, attend_in_blocks, attend_in_groups, group_segments, like_lengths

LENGTHS = [5, 1, 40, 2, 33, 7, 3, 40, 1, 36]
SCORES = {
    "plain": Scores(),
    "scaled window": Scores(scaling=0.3, window=4),
    "softcap": Scores(softcap=2.0),
    "sinks": Scores(window=6, sinks_H=torch.tensor([0.5, -1.0, 2.0, 0.0])),
}


def random_row(dtype: torch.dtype = torch.float32, value_width: int = 12) -> list[Tensor]:
    rows = torch.Generator().manual_seed(0)
    shapes = [(1, heads, sum(LENGTHS), width) for heads, width in ((4, 16), (2, 16), (2, value_width))]
    return [torch.randn(shape, generator=rows, dtype=torch.float64).to(dtype).requires_grad_() for shape in shapes]


def obvious(query: Tensor, key: Tensor, value: Tensor, scores: Scores) -> Tensor:
    """All pairs of the row, those of two segments masked out: (1, T, H, D)."""
    q = query[0].double()
    k, v = (x[0].double().repeat_interleave(2, dim=0) for x in (key, value))
    logits = q @ k.mT * (scores.scaling or q.shape[-1] ** -0.5)
    if scores.softcap:
        logits = scores.softcap * torch.tanh(logits / scores.softcap)
    segment = torch.repeat_interleave(torch.arange(len(LENGTHS)), torch.tensor(LENGTHS))
    distance = torch.arange(len(segment))[:, None] - torch.arange(len(segment))[None, :]
    seen = (segment[:, None] == segment[None, :]) & (distance >= 0) & (distance < (scores.window or 10**6))
    weights = logits.masked_fill(~seen, -torch.inf).exp()
    total = weights.sum(-1, keepdim=True)
    if scores.sinks_H is not None:
        total = total + scores.sinks_H.double().exp()[:, None, None]
    return (weights / total @ v).transpose(0, 1).unsqueeze(0)


def results(out: Tensor, row: list[Tensor]) -> list[Tensor]:
    weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    gradients = torch.autograd.grad((out.double() * weights).sum(), row)
    return [out, *gradients]


def assert_like_obvious(out: Tensor, row: list[Tensor], scores: Scores, relative: float) -> None:
    expected = results(obvious(row[0], row[1], row[2], scores), row)
    for pair in zip(results(out, row), expected, strict=True):
        found, right = (x.detach().double() for x in pair)
        assert float((found - right).norm() / right.norm()) < relative


@pytest.mark.parametrize("name", SCORES)
@pytest.mark.parametrize(("dtype", "relative"), [(torch.float32, 1e-6), (torch.bfloat16, 1e-2)])
def test_packed_attention_is_attention_inside_each_segment(name: str, dtype: torch.dtype, relative: float) -> None:
    row, scores = random_row(dtype), SCORES[name]
    bounds = torch.tensor([0, *LENGTHS]).cumsum(0).int()
    out, _ = packed_attention(
        nn.Identity(),
        *row,
        None,
        scaling=scores.scaling,
        sliding_window=scores.window,
        softcap=scores.softcap,
        s_aux=scores.sinks_H,
        cu_seq_lens_q=bounds,
        max_length_q=max(LENGTHS),
    )
    assert out.dtype == dtype
    assert_like_obvious(out, row, scores, relative)


@pytest.mark.parametrize("name", SCORES)
def test_groups_of_like_lengths_give_the_same(name: str) -> None:
    row, scores = random_row(), SCORES[name]
    attend = segment_attention._attend_plain if scores.is_plain else attend_in_blocks
    out = attend_in_groups(*row, scores, group_segments(LENGTHS, torch.device("cpu")), attend)
    assert_like_obvious(out, row, scores, 1e-6)


@pytest.mark.parametrize("name", SCORES)
def test_small_blocks_of_queries_give_the_same(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segment_attention, "_BLOCK_SCORES", 4 * 40 * 3)
    row, scores = random_row(), SCORES[name]
    parts = zip(*(torch.split(x, LENGTHS, dim=2) for x in row), strict=True)
    out = torch.cat([attend_in_blocks(q, k, v, scores) for q, k, v in parts], dim=2).transpose(1, 2)
    assert_like_obvious(out, row, scores, 1e-6)


def test_sinks_and_their_gradient_are_those_of_a_softmax_with_a_score_more() -> None:
    row = random_row()
    sinks = torch.tensor([0.5, -1.0, 2.0, 0.0], requires_grad=True)
    scores = Scores(sinks_H=sinks)
    groups = group_segments(LENGTHS, torch.device("cpu"))
    found = torch.autograd.grad(attend_in_groups(*row, scores, groups, attend_in_blocks).square().sum(), sinks)[0]
    right = torch.autograd.grad(obvious(row[0], row[1], row[2], scores).square().sum(), sinks)[0]
    torch.testing.assert_close(found, right.float(), rtol=1e-5, atol=1e-6)


def test_a_thousand_short_segments_are_few_calls_and_little_padding() -> None:
    lengths = [int(x) for x in torch.empty(1000).log_normal_(4, 1, generator=torch.Generator().manual_seed(0)).ceil()]
    groups = like_lengths(lengths)
    assert sorted(i for group in groups for i in group) == list(range(1000))
    assert len(groups) < 25
    slots = sum(lengths[group[0]] * len(group) for group in groups)
    assert sum(lengths) / slots > 0.75
