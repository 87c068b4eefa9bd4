"""The nll of a linear head with its gradients, both from one pass over the logits; these never exist all at once.

The gradient of a token's nll needs only its own logits. So it is made while they are there, in their own memory, and
they are not computed again for the backward pass (Hsu et al. 2024, "Liger Kernel: Efficient Triton Kernels for LLM
Training", section 3.2): three matrix products for four.

    chunk of tokens ──product──▶ logits ──block by block──▶ d nll / d logits, in place ──two products──▶ gradients

The logits of a chunk are in the head's dtype; float32 copies exist for one block of its rows at a time. So chunks, and
with them the products, can be large.

The head's gradient is added up over the chunks in float32, and rounded once: in bfloat16 it would depend on how many
chunks there are, and lose digits with each.

Shape suffixes: `S` supervised tokens, `C` those of a chunk, `H` hidden width, `V` vocabulary.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear

from sft.model.logit_blocks import block_rows


class Logits(NamedTuple):
    """How a model's logits are made from the products of hidden states and head."""

    chunk_tokens: int
    """Tokens whose logits exist at the same time."""
    scale: float = 1.0
    softcap: float | None = None
    """They are bent so that they stay below it, after they were multiplied with the scale."""

    def chunks(self, hidden_SH: Tensor, targets_S: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Views of both for chunks of one size, but for the last: at least one chunk, which may be empty."""
        num_chunks = max(1, -(-len(targets_S) // self.chunk_tokens))
        return list(zip(hidden_SH.chunk(num_chunks), targets_S.chunk(num_chunks), strict=True))


class _Wanted(NamedTuple):
    """Which gradients are needed."""

    hidden: bool
    weight: bool
    bias: bool


class _Pass(NamedTuple):
    nll_S: Tensor
    hidden_SH: Tensor | None
    weight_VH: Tensor | None
    bias_V: Tensor | None


def fused_nll(
    hidden_SH: Tensor,
    weight_VH: Tensor,
    bias_V: Tensor | None,
    targets_S: Tensor,
    how: Logits,
) -> Tensor:
    """The nll of each target in nats, differentiable once: (S,) float32, or float64 where the head is.

    Its gradients are made at once, for a gradient of 1 for each token. A backward pass that gives all tokens the same
    gradient, as that of a sum does, multiplies them. Any other one computes the logits again.
    """
    function: Any = _FusedNll
    nll_S: Tensor = function.apply(hidden_SH, weight_VH, bias_V, targets_S, how)
    return nll_S


def blocks(logits_CV: Tensor, *others_C: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Views of some rows of the logits, and of whatever else there is for each row."""
    rows = block_rows(logits_CV.shape[1], logits_CV.is_cuda)
    return zip(*(torch.split(tensor, rows) for tensor in (logits_CV, *others_C)), strict=True)


def bent(logits_CV: Tensor, how: Logits) -> Tensor:
    """The logits as the model means them, in float32 or wider; may be `logits_CV` itself."""
    wide_CV = logits_CV.to(torch.promote_types(logits_CV.dtype, torch.float32))
    if how.scale != 1:
        wide_CV = wide_CV * how.scale
    return how.softcap * torch.tanh(wide_CV / how.softcap) if how.softcap else wide_CV


class _FusedNll(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden_SH: Tensor,
        weight_VH: Tensor,
        bias_V: Tensor | None,
        targets_S: Tensor,
        how: Logits,
    ) -> Tensor:
        wanted = _Wanted(*ctx.needs_input_grad[:3])
        made = _nll_and_gradients(hidden_SH, weight_VH, bias_V, targets_S, None, how, wanted)
        # The head is saved as the parameter that it is, whose values ZeRO-3 takes away and brings back.
        ctx.save_for_backward(hidden_SH, weight_VH, bias_V, targets_S, *made[1:])
        ctx.how, ctx.wanted = how, wanted
        return made.nll_S

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_S: Tensor) -> tuple[Tensor | None, ...]:
        hidden_SH, weight_VH, bias_V, targets_S, *made = ctx.saved_tensors
        if grad_S.numel() > 1 and grad_S.stride() != (0,):
            given = hidden_SH, weight_VH, bias_V, targets_S
            made = list(_nll_and_gradients(*given, grad_S, ctx.how, ctx.wanted)[1:])
        elif grad_S.numel():
            # In place: autograd refuses a second backward pass through saved tensors that were changed.
            made = [gradient if gradient is None else gradient.mul_(grad_S[0]) for gradient in made]
        inputs = hidden_SH, weight_VH, bias_V
        narrow = [g if g is None else g.to(of.dtype) for g, of in zip(made, inputs, strict=True)]
        return *narrow, None, None


def _nll_and_gradients(
    hidden_SH: Tensor,
    weight_VH: Tensor,
    bias_V: Tensor | None,
    targets_S: Tensor,
    grad_S: Tensor | None,
    how: Logits,
    wanted: _Wanted,
) -> _Pass:
    """The nll, and its gradients for the gradient `grad_S` of each token's nll, or 1.

    Those of weight and bias may be wider than these.
    """
    wide = torch.promote_types(weight_VH.dtype, torch.float32)
    nll_S = torch.empty(len(targets_S), dtype=wide, device=hidden_SH.device)
    of_hidden_SH = torch.empty_like(hidden_SH) if wanted.hidden else None
    of_weight_VH: Tensor | None = None
    of_bias_V = torch.zeros_like(bias_V, dtype=wide) if wanted.bias and bias_V is not None else None
    chunks, start = how.chunks(hidden_SH, targets_S), 0
    for hidden_CH, targets_C in chunks:
        here = slice(start, start + len(targets_C))
        start = here.stop
        logits_CV = linear(hidden_CH, weight_VH, bias_V)
        _become_gradient(logits_CV, targets_C, nll_S[here], None if grad_S is None else grad_S[here], how)
        if of_hidden_SH is not None:
            torch.mm(logits_CV, weight_VH, out=of_hidden_SH[here])
        if wanted.weight:
            # A single chunk has nothing to add up.
            if of_weight_VH is None and len(chunks) > 1:
                of_weight_VH = torch.zeros_like(weight_VH, dtype=wide)
            of_weight_VH = _plus_product(of_weight_VH, logits_CV.t(), hidden_CH)
        if of_bias_V is not None:
            of_bias_V += logits_CV.sum(0, dtype=wide)
        # Or the next chunk's logits would be made beside these.
        del logits_CV
    return _Pass(nll_S, of_hidden_SH, of_weight_VH, of_bias_V)


def _plus_product(total: Tensor | None, left: Tensor, right: Tensor) -> Tensor:
    """`total` plus the product, in place; the product by itself where there is no total yet."""
    if total is None:
        return left @ right
    if total.dtype == left.dtype:
        return torch.addmm(total, left, right, out=total)
    if total.is_cuda:
        return torch.addmm(total, left, right, out_dtype=total.dtype, out=total)
    # torch has no such product for CPUs.
    return total.add_(left @ right)


def _become_gradient(logits_CV: Tensor, targets_C: Tensor, nll_C: Tensor, grad_C: Tensor | None, how: Logits) -> None:
    """Fill in the nll of each row, and change the logits into the gradients of the nll with respect to them."""
    given_C = (targets_C, nll_C) if grad_C is None else (targets_C, nll_C, grad_C)
    for logits_RV, targets_R, nll_R, *grads in blocks(logits_CV, *given_C):
        bent_RV = bent(logits_RV, how)
        log_probs_RV = torch.log_softmax(bent_RV, -1)
        at_target_R1 = log_probs_RV.gather(1, targets_R.unsqueeze(1))
        nll_R.copy_(at_target_R1.squeeze(1)).neg_()
        # The softmax, and minus 1 at the target.
        gradient_RV = log_probs_RV.exp_().scatter_(1, targets_R.unsqueeze(1), at_target_R1.expm1_())
        if how.softcap:
            gradient_RV.mul_(1 - (bent_RV / how.softcap).square_())
        if how.scale != 1:
            gradient_RV.mul_(how.scale)
        for grad_R in grads:
            gradient_RV.mul_(grad_R.unsqueeze(1))
        logits_RV.copy_(gradient_RV)
