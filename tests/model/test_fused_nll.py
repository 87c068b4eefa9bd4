"""The head's nll and gradients are those of plain autograd in float64, in three products, and never of all logits."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn.functional import cross_entropy, linear
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlamaConfig

from sft.model import fused_nll as fused
from sft.model.fused_nll import Logits, fused_nll
from sft.model.loss import NllHead, is_first_choice

HIDDEN = 6


def made(num_tokens: int, vocab: int, bias: bool = False, dtype: torch.dtype = torch.float64) -> list[Any]:
    """Hidden states, weight, bias and targets."""
    draw = torch.Generator().manual_seed(num_tokens + vocab)
    parts = [torch.randn(num_tokens, HIDDEN, generator=draw), torch.randn(vocab, HIDDEN, generator=draw)]
    parts += [torch.randn(vocab, generator=draw)] if bias else []
    leaves: list[Any] = [part.to(dtype).requires_grad_() for part in parts]
    return [*leaves, *([] if bias else [None]), torch.randint(0, vocab, (num_tokens,), generator=draw)]


def plain(hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, how: Logits) -> Tensor:
    logits = linear(hidden, weight, bias) * how.scale
    logits = how.softcap * torch.tanh(logits / how.softcap) if how.softcap else logits
    return cross_entropy(logits, targets, reduction="none")


def both(leaves: list[Tensor], found: Tensor, expected: Tensor) -> Any:
    return zip(torch.autograd.grad(found, leaves), torch.autograd.grad(expected, leaves), strict=True)


@given(
    st.integers(0, 20),
    st.integers(2, 40),
    st.builds(Logits, st.integers(1, 25), st.sampled_from([1.0, 0.25, 3.0]), st.sampled_from([None, 2.0])),
    st.booleans(),
    st.sampled_from(["sum", "mean of some", "each its own"]),
    st.integers(1, 30),
)
def test_nll_and_gradients_are_those_of_autograd(
    num_tokens: int, vocab: int, how: Logits, bias: bool, reduced: str, rows: int
) -> None:
    inputs = made(num_tokens, vocab, bias)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fused, "block_rows", lambda *_: rows)
        found, expected = fused_nll(*inputs, how), plain(*inputs, how)
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
        weights = torch.linspace(-2, 3, num_tokens, dtype=torch.float64)
        reduce = {
            "sum": lambda nll: nll.sum() * -1.7,
            "mean of some": lambda nll: nll[::2].sum() / 7,
            "each its own": lambda nll: nll @ weights,
        }[reduced]
        leaves = [part for part in inputs[:3] if part is not None]
        for ours, theirs in both(leaves, reduce(found), reduce(expected)):
            torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("chunk_tokens", [1000, 10])
@pytest.mark.parametrize(("dtype", "error"), [(torch.float32, 1e-6), (torch.bfloat16, 4e-3)])
def test_the_dtype_of_the_head_costs_one_rounding_however_many_chunks(
    dtype: torch.dtype, error: float, chunk_tokens: int
) -> None:
    inputs = made(1000, 60, True, dtype)
    exact = [part.detach().double().requires_grad_() for part in inputs[:3]]
    how = Logits(chunk_tokens, 0.5)
    found, expected = fused_nll(*inputs, how), plain(*exact, inputs[3], how)
    assert found.dtype == torch.float32
    torch.autograd.backward([found.sum() / 3, expected.sum() / 3])
    for ours, theirs in zip(inputs[:3], exact, strict=True):
        assert ours.grad.dtype == dtype
        assert (ours.grad - theirs.grad).norm() < error * theirs.grad.norm()


@pytest.mark.parametrize(
    ("trained", "products"), [((True, True), 3), ((True, False), 2), ((False, True), 2), ((False, False), 1)]
)
def test_each_gradient_takes_one_product_and_none_that_is_not_needed(trained: tuple[bool, bool], products: int) -> None:
    inputs = made(20, 50)
    for part, is_trained in zip(inputs[:2], trained, strict=True):
        part.requires_grad_(is_trained)
    with FlopCounterMode(display=False) as counted:
        nll = fused_nll(*inputs, Logits(7))
        if any(trained):
            nll.sum().backward()
    assert counted.get_total_flops() == products * 2 * 20 * 50 * HIDDEN
    assert [part.grad is not None for part in inputs[:2]] == list(trained)


def test_without_a_gradient_the_head_computes_only_its_measure() -> None:
    head = NllHead(torch.nn.Linear(HIDDEN, 50, bias=False), LlamaConfig(), 7)
    hidden, *_, targets = made(20, 50, dtype=torch.float32)
    with FlopCounterMode(display=False) as counted:
        with torch.no_grad():
            nll = head(hidden, targets)
        assert not head(hidden, targets, is_first_choice).requires_grad
    assert counted.get_total_flops() == 2 * 2 * 20 * 50 * HIDDEN
    torch.testing.assert_close(nll, head(hidden, targets).detach(), rtol=0, atol=0)


class _Largest(TorchDispatchMode):
    """The most elements of a tensor that any operator returns."""

    num_elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        parts = result if isinstance(result, (tuple, list)) else [result]
        self.num_elements = max([self.num_elements, *(part.numel() for part in parts if isinstance(part, Tensor))])
        return result


def test_no_more_logits_exist_than_those_of_a_chunk() -> None:
    with _Largest() as largest:
        fused_nll(*made(300, 500), Logits(30)).sum().backward()
    assert largest.num_elements <= 30 * 500


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_a_logit_that_is_not_finite_is_seen_in_the_loss(wrong: float) -> None:
    hidden, weight, _, targets = made(5, 9)
    with torch.no_grad():
        hidden[3, 2] = wrong
    nll = fused_nll(hidden, weight, None, targets, Logits(2))
    assert not nll.sum().isfinite()
    assert nll.isfinite().tolist() == [True, True, True, False, True]


def test_the_values_of_the_head_may_be_taken_away_until_the_backward_pass() -> None:
    """As ZeRO-3 does. Nothing else keeps them; if the logits are made again, they are those that are back."""
    hidden, weight, _, targets = made(5, 9)
    expected = torch.autograd.grad(plain(hidden, weight, None, targets, Logits(2)) @ torch.arange(5.0).double(), weight)
    nll = fused_nll(hidden, weight, None, targets, Logits(2))
    values, gathered = weight.detach().clone(), StorageWeakRef(weight.untyped_storage())
    weight.data = torch.empty(0, dtype=torch.float64)
    assert gathered.expired()
    weight.data = values
    torch.testing.assert_close(torch.autograd.grad(nll @ torch.arange(5.0).double(), weight), expected)


def test_a_second_backward_pass_is_refused() -> None:
    nll = fused_nll(*made(5, 9), Logits(2))
    nll.sum().backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        nll.sum().backward()
