"""Cuts a packed row into equal parts, one for each rank that shares the micro-batch (`train.sequence_parallel`).

    row, 3 segments        a a a a b b b c c c c
    padded for 4 parts     a a a a b b b c c c c -      a segment of its own behind the row, which is not supervised
    parts of ranks 0 to 3  a a a|a b b|b c c|c c -

What a token is and what it predicts are found in the whole row, before it is cut: so a target may lie in another part
than the token that predicts it. Attention sees whole segments (`sft.model.sequence_parallel`), so every part keeps the
boundaries of the whole row, and what was fed is that of the whole row, too.
"""

from dataclasses import replace

import torch
from torch import Tensor

from sft.data.collate import Batch

_LEAST_PART_TOKENS = 2
"""Some models take a single token for the continuation of an answer."""


def part_of(batch: Batch, place: int, num_parts: int) -> Batch:
    """The part at `place` of a packed micro-batch; the micro-batch itself if there is one part.

    It has the targets that its own tokens predict, in their order. The parts together have each target once.
    """
    if num_parts == 1:
        return batch
    assert batch.layout == "packed", "only packed rows are cut"
    length = batch.input_ids_BT.shape[1]
    share = max(-(-length // num_parts), _LEAST_PART_TOKENS)
    num_padding, begin, end = share * num_parts - length, place * share, (place + 1) * share
    num_segments = len(batch.cu_seqlens) - 1

    def cut(values_BT: Tensor, padding_T: Tensor) -> Tensor:
        return torch.cat([values_BT, padding_T.to(values_BT.dtype).unsqueeze(0)], dim=1)[:, begin:end]

    padding_T = torch.arange(num_padding)
    is_own_S = is_own_target(batch, place, num_parts)
    targets_S = batch.targets_S[is_own_S]
    return replace(
        batch,
        input_ids_BT=cut(batch.input_ids_BT, torch.zeros_like(padding_T)),
        position_ids_BT=cut(batch.position_ids_BT, padding_T),
        segment_ids_BT=cut(batch.segment_ids_BT, torch.full_like(padding_T, num_segments)),
        loss_mask_BT=cut(batch.loss_mask_BT, torch.zeros_like(padding_T)),
        targets_S=targets_S,
        predicted_from_S=batch.predicted_from_S[is_own_S] - begin,
        segments_S=batch.segments_S[is_own_S],
        cu_seqlens=torch.cat([batch.cu_seqlens, batch.cu_seqlens.new_tensor([share * num_parts])])
        if num_padding
        else batch.cu_seqlens,
        max_seqlen=max(batch.max_seqlen, num_padding),
        num_supervised_tokens=len(targets_S),
        num_parts=num_parts,
    )


def is_own_target(batch: Batch, place: int, num_parts: int) -> Tensor:
    """For each target of a whole micro-batch whether the part at `place` predicts it: (S,)."""
    share = max(-(-batch.input_ids_BT.shape[1] // num_parts), _LEAST_PART_TOKENS)
    return batch.predicted_from_S // share == place
