"""Attention of a row that several ranks share: heads for tokens, by an all-to-all before and after it.

A rank has all heads of a part of the tokens. Attention needs all tokens, but each head by itself. So the ranks exchange
the tokens of all for a share of the heads, attend, and exchange back (Jacobs et al. 2023, "DeepSpeed Ulysses",
arXiv 2309.14509, section 3):

    rank 0: heads 0 1 2 3, tokens a b      all-to-all      rank 0: heads 0 1, tokens a b c d
    rank 1: heads 0 1 2 3, tokens c d     ──────────▶      rank 1: heads 2 3, tokens a b c d

The backward pass does the same with the gradients, the other way. A rank's gradient of a parameter is what its own
tokens, and its heads' sinks, add to that of all: like those of ranks with rows of their own, they are added up.

What is sent to a rank lies in one piece, token by token: each tensor is copied once to be sent, and then the tokens
that come from the ranks are already in the order of the row. Outputs are sent as they are, and copied once when they
come, to have all heads of a token side by side.

Shape suffixes: `P` ranks that share the row, `H` heads of queries and `G` of keys, `T` tokens of a part, `L` tokens of
the row, `D` head width.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sft.errors import UserError
from sft.model.split_heads import key_repeats, why_not_divisible


class SequenceGroup(NamedTuple):
    """The ranks that share a row, as one of them sees them."""

    place: int
    size: int
    all_to_all: Callable[[Tensor], Tensor]
    """(P, …) → (P, …), see `sft.ranks.ranks.Ranks`."""

    def own_heads(self, query_1HTD: Tensor, key_1GTD: Tensor, value_1GTD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """All tokens of this rank's heads: (1, H / P, L, D), (1, G · repeats / P, L, D) and (1, …, L, D').

        Heads of keys and values are sent as often as needed (`split_heads`); their gradients are added up.

        Raises:
            UserError: the heads cannot be divided among the ranks. A model is refused before (`sft.model.sharing`): the
                ranks outside of the group would not know of it.
        """
        num_heads, num_key_heads = query_1HTD.shape[1], key_1GTD.shape[1]
        repeats = key_repeats(num_heads, num_key_heads, self.size)
        if repeats is None:
            why = why_not_divisible([(num_heads, num_key_heads)], self.size)
            raise UserError(f"train.sequence_parallel: {self.size}: {why}.")
        keys, values = (self._tokens_of_all(x, repeats) for x in (key_1GTD, value_1GTD))
        return self._tokens_of_all(query_1HTD), keys, values

    def own_sinks(self, sinks_H: Tensor) -> Tensor:
        """The sinks of this rank's heads."""
        return sinks_H.chunk(self.size)[self.place]

    def own_tokens(self, output_1LHD: Tensor) -> Tensor:
        """All heads of this rank's tokens, from its heads of all tokens: (1, L, H / P, D) → (1, T, H, D)."""
        length, heads, width = output_1LHD.shape[1:]
        parts_PTHD = self._exchanged(output_1LHD.reshape(self.size, length // self.size, heads, width))
        return parts_PTHD.transpose(0, 1).flatten(1, 2).unsqueeze(0)

    def _tokens_of_all(self, values_1HTD: Tensor, repeats: int = 1) -> Tensor:
        """This rank's heads of all tokens, from all heads of its own, each `repeats` times: (1, H', L, D)."""
        heads, length, width = values_1HTD.shape[1:]
        # Ranks that get copies of the same heads are neighbours: `repeats` of them, in so many sets.
        sets = self.size // repeats
        heads_TSH1D = values_1HTD.squeeze(0).transpose(0, 1).reshape(length, sets, heads // sets, 1, width)
        # Each head so many times behind itself; then cut for the ranks of a set. No copy, unless both are several.
        copies_TSHRD = heads_TSH1D.expand(-1, -1, -1, repeats, -1)
        of_ranks_TSRHD = copies_TSHRD.reshape(length, sets, repeats, heads // sets, width)
        parts_PTHD = of_ranks_TSRHD.permute(1, 2, 0, 3, 4).flatten(0, 1)
        return self._exchanged(parts_PTHD).flatten(0, 1).transpose(0, 1).unsqueeze(0)

    def _exchanged(self, parts_P: Tensor) -> Tensor:
        function: Any = _AllToAll
        exchanged: Tensor = function.apply(parts_P, self.all_to_all)
        return exchanged


class SplitRow(NamedTuple):
    """What attention needs to know of a row of which this rank has a part."""

    group: SequenceGroup
    cu_seqlens: Tensor
    """Of the whole row."""
    max_seqlen: int


class _AllToAll(torch.autograd.Function):
    """The part that goes to a rank comes from it in the backward pass: the exchange is its own inverse."""

    @staticmethod
    def forward(ctx: Any, parts_P: Tensor, all_to_all: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.all_to_all = all_to_all
        return all_to_all(parts_P.contiguous())

    @staticmethod
    def backward(ctx: Any, *gradients_P: Tensor) -> tuple[Tensor, None]:
        (gradient_P,) = gradients_P
        return ctx.all_to_all(gradient_P.contiguous()), None
