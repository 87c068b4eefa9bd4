"""Turns packs into tensors: end to end in one row without padding, or one example in a row, with padding behind it.

    packed        a a a b b c c c c        one example     a a a -
                                                           c c c c
                                                           b b - -

Shape suffixes: `B` rows (1 if they are packed), `T` tokens. Invariant: position ids restart at each segment, and the
first token of a segment is not supervised.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from sft.ledger import pack_digest
from sft.row_plan import row_batches
from sft.schema import Pack

Layout = Literal["packed", "one_example"]
"""Whether a row holds the examples of packs end to end, or one example."""

# Two tokens, since a single one has nothing to attend to or to predict; their ids do not matter.
_EMPTY_LEN_TOKENS = 2


@dataclass(frozen=True, slots=True)
class Batch:
    """One micro-batch on a device. A packed row holds its segments in order; otherwise each row holds one segment."""

    input_ids_BT: Tensor
    position_ids_BT: Tensor
    loss_mask_BT: Tensor
    cu_seqlens: Tensor  # (num_segments + 1,) int32, cumulative lengths of the segments, without padding
    max_seqlen: int
    example_ids: tuple[int, ...]
    num_supervised_tokens: int
    fed: tuple[tuple[int, int], ...] = ()
    """(pack id, `sft.ledger.pack_digest`) of each pack, for the ledger."""
    layout: Layout = "packed"
    seed: int | None = None
    """The seed of everything random in the forward and the backward pass of this batch, such as dropout."""

    @property
    def num_tokens(self) -> int:
        """Tokens that are fed, without padding and the tokens of empty packs."""
        return int(self.cu_seqlens[-1]) if self.example_ids else 0

    def to(self, device: torch.device) -> "Batch":
        """The batch on another device."""
        if device.type == "cpu":
            return self
        return replace(
            self,
            input_ids_BT=self.input_ids_BT.to(device, non_blocking=True),
            position_ids_BT=self.position_ids_BT.to(device, non_blocking=True),
            loss_mask_BT=self.loss_mask_BT.to(device, non_blocking=True),
            cu_seqlens=self.cu_seqlens.to(device, non_blocking=True),
        )


def collate(packs: Sequence[Pack | None]) -> Batch:
    """One micro-batch of the packs; None stands for an empty pack.

    An empty micro-batch still has two tokens: the rank must run the model in step with the others.
    """
    real = [pack for pack in packs if pack is not None]
    if not real:
        return empty_batch("packed")
    segment_lens = np.concatenate([np.diff(pack.cu_seqlens) for pack in real])
    cu_seqlens = np.concatenate([[0], np.cumsum(segment_lens)])
    loss_mask = np.concatenate([pack.loss_mask for pack in real])
    input_ids = np.concatenate([pack.input_ids for pack in real]).astype(np.int64)
    position_ids = np.arange(len(input_ids)) - np.repeat(cu_seqlens[:-1], segment_lens)
    return Batch(
        torch.from_numpy(input_ids).unsqueeze(0),
        torch.from_numpy(position_ids).unsqueeze(0),
        torch.from_numpy(loss_mask).unsqueeze(0),
        torch.from_numpy(cu_seqlens.astype(np.int32)),
        int(segment_lens.max()),
        tuple(int(i) for pack in real for i in pack.example_ids),
        int(loss_mask.sum()),
        tuple((pack.pack_id, pack_digest(pack)) for pack in real),
    )


def collate_rows(packs: Sequence[Pack], max_slots: int) -> list[Batch]:
    """All examples of the packs, one in each row, in batches of at most `max_slots` slots including padding.

    Padding is behind the example, where a causal model cannot see it from the example's tokens. The first batch lists
    all packs as fed.
    """
    input_ids = [part for pack in packs for part in np.split(pack.input_ids, pack.cu_seqlens[1:-1])]
    masks = [part for pack in packs for part in np.split(pack.loss_mask, pack.cu_seqlens[1:-1])]
    lengths = np.array([len(part) for part in input_ids], dtype=np.int64)
    example_ids = [int(i) for pack in packs for i in pack.example_ids]
    batches: list[Batch] = []
    for rows in row_batches(lengths, max_slots):
        ids_BT = np.zeros((len(rows), lengths[rows[0]]), dtype=np.int64)
        mask_BT = np.zeros(ids_BT.shape, dtype=np.bool_)
        for row, i in enumerate(rows):
            ids_BT[row, : lengths[i]] = input_ids[i]
            mask_BT[row, : lengths[i]] = masks[i]
        fed = () if batches else tuple((pack.pack_id, pack_digest(pack)) for pack in packs)
        batches.append(
            Batch(
                torch.from_numpy(ids_BT),
                torch.arange(ids_BT.shape[1]).repeat(len(rows), 1),
                torch.from_numpy(mask_BT),
                torch.from_numpy(np.cumsum([0, *lengths[rows]]).astype(np.int32)),
                ids_BT.shape[1],
                tuple(example_ids[i] for i in rows),
                int(mask_BT.sum()),
                fed,
                "one_example",
            )
        )
    return batches


def empty_batch(layout: Layout) -> Batch:
    """A batch that adds nothing to the loss: two tokens, none of them supervised."""
    zeros_BT = torch.zeros(1, _EMPTY_LEN_TOKENS, dtype=torch.int64)
    positions_BT = torch.arange(_EMPTY_LEN_TOKENS).unsqueeze(0)
    cu_seqlens = torch.tensor([0, _EMPTY_LEN_TOKENS], dtype=torch.int32)
    return Batch(zeros_BT, positions_BT, zeros_BT.bool(), cu_seqlens, _EMPTY_LEN_TOKENS, (), 0, (), layout)
