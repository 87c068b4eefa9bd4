"""The negative log-likelihood of each supervised token; logits exist for those only, a chunk at a time.

The one shift between a token and its prediction is here: the token at `t + 1` is predicted from the hidden state at
`t`. As no segment starts with a supervised token, no prediction crosses from one example to the next.

Shape suffixes: `B` rows (always 1), `T` tokens, `S` supervised tokens, `H` hidden width, `V` vocabulary.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, linear
from torch.utils.checkpoint import checkpoint

from sft.data.collate import Batch
from sft.model.text_path import text_decoder


class NllHead(nn.Module):
    """The language model's head and loss in one module, in the place of the model's own output layer.

    One module, because ZeRO-3 gathers a module's parameters each time it is called: the head's are gathered once
    for all chunks, and the order of calls does not vary with the number of supervised tokens.
    """

    def __init__(self, output: nn.Linear, config: Any, chunk_tokens: int) -> None:
        """Take over the parameters of the output layer, which may be tied to the embedding."""
        super().__init__()
        self.weight = output.weight
        self.bias = output.bias
        self.chunk_tokens = chunk_tokens
        # What some models do to their logits: Gemma 2 bends, Granite divides, Cohere multiplies.
        self.softcap = getattr(config, "final_logit_softcapping", None)
        self.scale = getattr(config, "logit_scale", None) or 1.0 / (getattr(config, "logits_scaling", None) or 1.0)

    def forward(self, hidden_SH: Tensor, targets_S: Tensor) -> Tensor:
        """The nll of each target: (S,) float32. With no target at all it still depends on every parameter."""
        chunks = max(1, -(-len(targets_S) // self.chunk_tokens))
        pieces = zip(hidden_SH.chunk(chunks), targets_S.chunk(chunks), strict=True)
        return torch.cat([checkpoint(self._chunk_nll, h, t, use_reentrant=False) for h, t in pieces])

    def _chunk_nll(self, hidden_SH: Tensor, targets_S: Tensor) -> Tensor:
        logits_SV = linear(hidden_SH, self.weight, self.bias).float() * self.scale
        if self.softcap:
            logits_SV = self.softcap * torch.tanh(logits_SV / self.softcap)
        return cross_entropy(logits_SV, targets_S, reduction="none")


class SupervisedNll(nn.Module):
    """A causal language model from a batch to the nll of its supervised tokens."""

    def __init__(self, model: Any, chunk_tokens: int) -> None:
        """`model` is a Hugging Face causal language model; its output layer is replaced."""
        super().__init__()
        model.set_output_embeddings(NllHead(model.get_output_embeddings(), model.config, chunk_tokens))
        self.model = model

    def forward(self, batch: Batch) -> Tensor:
        """The nll of each supervised token, in the order of the row: (S,) float32."""
        hidden_BTH = text_decoder(self.model)(
            input_ids=batch.input_ids_BT,
            position_ids=batch.position_ids_BT,
            use_cache=False,
            cu_seq_lens_q=batch.cu_seqlens,
            cu_seq_lens_k=batch.cu_seqlens,
            max_length_q=batch.max_seqlen,
            max_length_k=batch.max_seqlen,
        ).last_hidden_state
        predicted_at = batch.loss_mask_BT[0, 1:].nonzero().squeeze(1)
        targets_S = batch.input_ids_BT[0, predicted_at + 1]
        nll_S: Tensor = self.model.get_output_embeddings()(hidden_BTH[0, predicted_at], targets_S)
        return nll_S


def nll_by_segment(nll_S: Tensor, batch: Batch) -> Tensor:
    """Sums of the nll over each segment of the row: (num_segments,) float64."""
    supervised_at = batch.loss_mask_BT[0].nonzero().squeeze(1)
    segments = torch.bucketize(supervised_at, batch.cu_seqlens[1:].long(), right=True)
    sums = torch.zeros(len(batch.cu_seqlens) - 1, dtype=torch.float64, device=nll_S.device)
    return sums.index_add_(0, segments, nll_S.detach().double())
