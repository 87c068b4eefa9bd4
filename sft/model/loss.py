"""The negative log-likelihood of each supervised token, or another measure of it, from its logits.

Logits exist for those tokens only, a chunk at a time.

The one shift between a token and its prediction is here: the token at `t + 1` is predicted from the hidden state at
`t`. No segment starts with a supervised token, so no prediction crosses from one example to the next.

Shape suffixes: `B` rows (1 where they are packed), `T` tokens, `S` supervised tokens, `H` hidden width, `V` vocabulary.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, linear

from sft.data.collate import Batch
from sft.errors import UserError
from sft.model.attention import attention_of
from sft.model.fused_nll import Logits, bent, blocks, fused_nll
from sft.model.kernels import without_kernels
from sft.model.sequence_parallel import SequenceGroup, SplitRow
from sft.model.text_path import text_decoder

_SOFTCAPS = ("final_logit_softcapping", "logits_soft_cap", "output_logit_soft_cap")


TokenMeasure = Callable[[Tensor, Tensor], Tensor]
"""(logits_SV in float32, targets_S) → a measure of each target: (S,), or (S, M) for several measures."""


def token_nll(logits_SV: Tensor, targets_S: Tensor) -> Tensor:
    """The negative log-likelihood, in nats."""
    return cross_entropy(logits_SV, targets_S, reduction="none")


def is_first_choice(logits_SV: Tensor, targets_S: Tensor) -> Tensor:
    """1 where the target is the most probable token (of several, the one with the lowest id), else 0."""
    return (logits_SV.argmax(-1) == targets_S).float()


def all_of(measures: Sequence[TokenMeasure]) -> TokenMeasure:
    """All of these measures, one in each column."""
    return lambda logits_SV, targets_S: torch.stack([measure(logits_SV, targets_S) for measure in measures], 1)


class NllHead(nn.Module):
    """The language model's head and loss in one module, which replaces the model's own output layer.

    It is one module because ZeRO-3 gathers a module's parameters at each call: the head's parameters are gathered once
    for all chunks, and the order of calls does not depend on the number of supervised tokens.
    """

    def __init__(self, output: nn.Linear, config: Any, chunk_tokens: int) -> None:
        """Take over the parameters of the output layer, which may be tied to the embedding."""
        super().__init__()
        self.weight = output.weight
        self.bias = output.bias
        # What some models do to their logits: Gemma 2 bends, Granite divides, Cohere multiplies. The probe finds
        # whether a model does anything else (see `packing_probe`).
        scale = getattr(config, "logit_scale", None) or 1.0 / (getattr(config, "logits_scaling", None) or 1.0)
        softcap = next((cap for name in _SOFTCAPS if (cap := getattr(config, name, None))), None)
        self.logits = Logits(chunk_tokens, scale, softcap)

    def forward(self, hidden_SH: Tensor, targets_S: Tensor | None = None, measure: TokenMeasure = token_nll) -> Tensor:
        """The nll of each target: (S,) float32, or the result of `measure`, which has no gradient.

        Even without targets the nll depends on all parameters. Without `targets_S` it acts as the output layer that it
        replaces, for the model's own forward pass.
        """
        # Some models keep their residual stream in float32.
        hidden_SH = hidden_SH.to(self.weight.dtype)
        if targets_S is None:
            return linear(hidden_SH, self.weight, self.bias)
        inputs = hidden_SH, self.weight, self.bias
        is_trained = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in inputs if tensor is not None)
        if is_trained and measure is token_nll:
            return fused_nll(*inputs, targets_S, self.logits)
        with torch.no_grad():
            chunks = self.logits.chunks(hidden_SH, targets_S)
            return torch.cat([self._measure_chunk(h, t, measure) for h, t in chunks])

    def _measure_chunk(self, hidden_SH: Tensor, targets_S: Tensor, measure: TokenMeasure) -> Tensor:
        logits_SV = linear(hidden_SH, self.weight, self.bias)
        return torch.cat([measure(bent(part, self.logits), t) for part, t in blocks(logits_SV, targets_S)])


class SupervisedNll(nn.Module):
    """A causal language model from a batch to the nll of its supervised tokens."""

    def __init__(self, model: Any, chunk_tokens: int, group: SequenceGroup | None = None) -> None:
        """`model` is a Hugging Face causal language model; its output layer is replaced.

        With `group`, it takes parts of rows, too, which these ranks run together.

        Raises:
            UserError: the model has no output layer of the usual kind.
        """
        super().__init__()
        output = model.get_output_embeddings()
        if not isinstance(output, nn.Linear):
            kind = "no output layer" if output is None else f"an output layer of the class {type(output).__name__}"
            raise UserError(f"model: {type(model).__name__} has {kind}; a linear layer over the vocabulary is needed")
        model.set_output_embeddings(NllHead(output, model.config.get_text_config(), chunk_tokens))
        self.model = model
        self.group = group

    def forward(self, batch: Batch, by_own_forward: bool = False, measure: TokenMeasure = token_nll) -> Tensor:
        """The nll of each supervised token, or the result of `measure`, in the order of the rows: (S,) float32.

        With `by_own_forward`, everything is transformers' own: the reference attention of the model's authors, the
        modules' own forwards, and the model's own logits. It is correct for a row of one segment, and computes all
        logits of the row.
        """
        if by_own_forward:
            with attention_of(self.model, "eager"), without_kernels(self.model):
                logits_BTV = self.model(input_ids=batch.input_ids_BT, use_cache=False).logits
            return measure(_predicting(logits_BTV, batch).float(), batch.targets_S)
        hidden_BTH = text_decoder(self.model)(
            input_ids=batch.input_ids_BT, position_ids=batch.position_ids_BT, use_cache=False, **self._boundaries(batch)
        ).last_hidden_state
        measured_S: Tensor = self.model.get_output_embeddings()(
            _predicting(hidden_BTH, batch), batch.targets_S, measure
        )
        return measured_S

    def _boundaries(self, batch: Batch) -> dict[str, Any]:
        """The arguments that tell the layers where the segments of a packed row begin, under transformers' names.

        Of a row that ranks share, only our attention is told: no other layer could use the boundaries, and a model that
        does not pass them on is refused.
        """
        if batch.layout != "packed":
            return {}
        if batch.num_parts > 1:
            assert self.group is not None
            assert self.group.size == batch.num_parts
            return {"split_row": SplitRow(self.group, batch.cu_seqlens, batch.max_seqlen)}
        return {
            "cu_seq_lens_q": batch.cu_seqlens,
            "cu_seq_lens_k": batch.cu_seqlens,
            "max_length_q": batch.max_seqlen,
            "max_length_k": batch.max_seqlen,
            "seq_idx": batch.segment_ids_BT,
        }


def _predicting(values_BTX: Tensor, batch: Batch) -> Tensor:
    """The values at the tokens before the targets: (S, …)."""
    return values_BTX.flatten(0, 1).index_select(0, batch.predicted_from_S)


def sums_by_segment(measured_S: Tensor, batch: Batch) -> Tensor:
    """The sums over the supervised tokens of each segment: (S, …) → (num_segments, …) float64."""
    shape = len(batch.cu_seqlens) - 1, *measured_S.shape[1:]
    sums = torch.zeros(shape, dtype=torch.float64, device=measured_S.device)
    return sums.index_add_(0, batch.segments_S, measured_S.detach().double())
