"""The immutable types that data passes through, one for each hop.

    Record ──format──▶ Conversation ──render, tokenize──▶ Example ──pack──▶ Pack ──collate──▶ Batch

`Batch` holds tensors and so lives in `sft.data.collate`; everything here is free of torch.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Role = Literal["system", "user", "assistant", "tool"]
IntArray = npt.NDArray[np.integer[Any]]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Record:
    """One row of a source as it was read: its fields and the place a person can look it up at."""

    source: str
    index: int
    where: str
    fields: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Message:
    """One turn. Assistant turns are trained unless the mask rule of the config says otherwise."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True)
class Conversation:
    """A record in the one form that every format ends in: the turns, and the task they belong to."""

    messages: tuple[Message, ...]
    task: str
    source: str
    index: int
    where: str


@dataclass(frozen=True, slots=True)
class Example:
    """A conversation as token ids; `loss_mask` is True where a token is learned, and False at position 0."""

    input_ids: IntArray  # (num_tokens,)
    loss_mask: BoolArray  # (num_tokens,)

    def __post_init__(self) -> None:
        """Hold the invariants that the loss relies on."""
        assert self.input_ids.shape == self.loss_mask.shape
        # Position 0 has no predecessor to be predicted from; were it supervised, the shift in the loss would
        # predict it from the example before it in the pack.
        assert not self.loss_mask[:1].any(), "loss_mask[0] must be False"


@dataclass(frozen=True, slots=True)
class Pack:
    """Examples laid end to end in one row; `cu_seqlens` are the boundaries attention does not cross."""

    pack_id: int
    example_ids: IntArray  # (num_segments,)
    input_ids: IntArray  # (num_tokens,)
    loss_mask: BoolArray  # (num_tokens,)
    cu_seqlens: IntArray  # (num_segments + 1,), first 0, last num_tokens


@dataclass(frozen=True, slots=True)
class Rejected:
    """A record that cannot be used, and why."""

    source: str
    index: int
    where: str
    reason: str
