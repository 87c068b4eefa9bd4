"""Turns the packs of a micro-batch into tensors: one row without padding, with the boundaries of its segments.

Shape suffixes: `B` rows (always 1), `T` tokens. Invariant: position ids restart at each segment, and the first
token of a segment is not supervised.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from sft.ledger import pack_digest
from sft.schema import Pack

# Two tokens, since one has nothing to attend to or to predict; what they are does not matter.
_EMPTY_LEN_TOKENS = 2


@dataclass(frozen=True, slots=True)
class Batch:
    """One micro-batch on a device."""

    input_ids_BT: Tensor
    position_ids_BT: Tensor
    loss_mask_BT: Tensor
    cu_seqlens: Tensor  # (num_segments + 1,) int32
    max_seqlen: int
    example_ids: tuple[int, ...]
    num_supervised_tokens: int
    fed: tuple[tuple[int, int], ...] = ()
    """(pack id, `sft.ledger.pack_digest`) of each pack, for the ledger."""

    @property
    def num_tokens(self) -> int:
        """Tokens that are fed, without those of empty packs."""
        return self.input_ids_BT.numel() if self.example_ids else 0

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
    """One micro-batch of the packs; None stands for an empty one.

    An empty micro-batch still has two tokens: the rank must run the model in step with the others.
    """
    real = [pack for pack in packs if pack is not None]
    if not real:
        return _empty_batch()
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


def _empty_batch() -> Batch:
    zeros_BT = torch.zeros(1, _EMPTY_LEN_TOKENS, dtype=torch.int64)
    positions_BT = torch.arange(_EMPTY_LEN_TOKENS).unsqueeze(0)
    cu_seqlens = torch.tensor([0, _EMPTY_LEN_TOKENS], dtype=torch.int32)
    return Batch(zeros_BT, positions_BT, zeros_BT.bool(), cu_seqlens, _EMPTY_LEN_TOKENS, (), 0)
