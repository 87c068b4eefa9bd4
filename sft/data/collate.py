"""Turns packs into tensors: end to end in one row without padding, or one example in a row, with padding behind it.

    packed        a a a b b c c c c        one example     a a a -
                                                           c c c c
                                                           b b - -

What the loss needs to know of the mask is found here, on the host: on a GPU, finding it would make the host wait until
the GPU has caught up.

Shape suffixes: `B` rows (1 if they are packed), `T` tokens, `S` supervised tokens, in the order of the rows. Invariant:
position ids restart at each segment, and the first token of a segment is not supervised.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from sft.ledger import pack_digest
from sft.row_plan import row_batches
from sft.schema import BoolArray, IntArray, Pack

Layout = Literal["packed", "one_example"]
"""Whether a row holds the examples of packs end to end, or one example."""

# Two tokens, since a single one has nothing to attend to or to predict; their ids do not matter.
_EMPTY_LEN_TOKENS = 2


@dataclass(frozen=True, slots=True)
class Batch:
    """One micro-batch on a device. A packed row holds its segments in order; otherwise each row holds one segment."""

    input_ids_BT: Tensor
    position_ids_BT: Tensor
    segment_ids_BT: Tensor  # int32
    loss_mask_BT: Tensor  # stays on the host
    targets_S: Tensor
    predicted_from_S: Tensor  # where in the flattened rows the token before each target is, whose state predicts it
    segments_S: Tensor  # the segment of each target
    cu_seqlens: Tensor  # (num_segments + 1,) int32, cumulative lengths of the segments, without padding
    max_seqlen: int
    example_ids: tuple[int, ...]
    num_supervised_tokens: int
    fed: tuple[tuple[int, int], ...] = ()
    """(pack id, `sft.ledger.pack_digest`) of each pack, for the ledger."""
    layout: Layout = "packed"
    num_parts: int = 1
    """If more, the tokens and targets are those of one part of the row (see `sft.data.sequence_parts`). `cu_seqlens`,
    `max_seqlen`, `example_ids` and `fed` are those of the whole row, with a segment more if it was padded."""
    seed: int | None = None
    """The seed of everything random in the forward and the backward pass of this batch, such as dropout."""

    @property
    def num_tokens(self) -> int:
        """Tokens of the whole row, without padding and the tokens of empty packs."""
        return int(self.cu_seqlens[len(self.example_ids)])

    @property
    def example_lengths(self) -> Tensor:
        """The tokens of each example, without padding: (num_examples,)."""
        return self.cu_seqlens[: len(self.example_ids) + 1].diff()

    def to(self, device: torch.device) -> "Batch":
        """The batch on another device. From pinned memory, the host does not wait for the copies."""
        return self if device.type == "cpu" else self._with_each(lambda tensor: tensor.to(device, non_blocking=True))

    def pin(self) -> "Batch":
        """The batch in memory that a GPU can read while the host goes on. There must be a GPU."""
        return self._with_each(Tensor.pin_memory)

    def _with_each(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        """The batch with every tensor changed that the model needs."""
        values = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "loss_mask_BT"}
        changed: dict[str, Any] = {name: change(v) for name, v in values.items() if isinstance(v, Tensor)}
        return replace(self, **changed)


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
    segment_ids = np.repeat(np.arange(len(segment_lens), dtype=np.int32), segment_lens)
    return Batch(
        **_rows(input_ids[None], position_ids[None], loss_mask[None], segment_ids[None]),
        cu_seqlens=torch.from_numpy(cu_seqlens.astype(np.int32)),
        max_seqlen=int(segment_lens.max()),
        example_ids=tuple(int(i) for pack in real for i in pack.example_ids),
        fed=tuple((pack.pack_id, pack_digest(pack)) for pack in real),
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
                **_rows(ids_BT, np.tile(np.arange(ids_BT.shape[1]), (len(rows), 1)), mask_BT, _row_numbers(ids_BT)),
                cu_seqlens=torch.from_numpy(np.cumsum([0, *lengths[rows]]).astype(np.int32)),
                max_seqlen=ids_BT.shape[1],
                example_ids=tuple(example_ids[i] for i in rows),
                fed=fed,
                layout="one_example",
            )
        )
    return batches


def empty_batch(layout: Layout) -> Batch:
    """A batch that adds nothing to the loss: two tokens, none of them supervised."""
    zeros_BT = np.zeros((1, _EMPTY_LEN_TOKENS), dtype=np.int64)
    positions_BT = np.arange(_EMPTY_LEN_TOKENS)[None]
    return Batch(
        **_rows(zeros_BT, positions_BT, zeros_BT.astype(np.bool_), _row_numbers(zeros_BT)),
        cu_seqlens=torch.tensor([0, _EMPTY_LEN_TOKENS], dtype=torch.int32),
        max_seqlen=_EMPTY_LEN_TOKENS,
        example_ids=(),
        layout=layout,
    )


def _rows(ids_BT: IntArray, positions_BT: IntArray, mask_BT: BoolArray, segment_ids_BT: IntArray) -> dict[str, Any]:
    """The fields of a batch that follow from its rows."""
    rows, at = mask_BT[:, 1:].nonzero()
    arrays = {
        "input_ids_BT": ids_BT,
        "position_ids_BT": positions_BT,
        "segment_ids_BT": segment_ids_BT,
        "loss_mask_BT": mask_BT,
        "targets_S": ids_BT[rows, at + 1],
        "predicted_from_S": rows * ids_BT.shape[1] + at,
        "segments_S": segment_ids_BT[rows, at + 1].astype(np.int64),
    }
    return {**{name: torch.from_numpy(a) for name, a in arrays.items()}, "num_supervised_tokens": int(mask_BT.sum())}


def _row_numbers(ids_BT: IntArray) -> IntArray:
    """The segments of rows that hold one each."""
    return np.repeat(np.arange(len(ids_BT), dtype=np.int32)[:, None], ids_BT.shape[1], axis=1)
