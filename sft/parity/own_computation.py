"""What the trained model makes of the cases here: the packed computation of training, and its own greedy answers."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from sft.answering.decoding import Decoding
from sft.answering.writing import Prompted, Style, answering, write_answers
from sft.data.collate import Batch, Layout, collate, collate_rows
from sft.model.attention import other_rounding
from sft.parity.case import Case
from sft.progress import Tell
from sft.schema import Pack

_PACK_TOKENS = 4096


class ComputingModel(Protocol):
    """A whole model that computes as in training (see `sft.answering.whole_model`)."""

    @property
    def hf_model(self) -> Any:
        """The Hugging Face model."""
        ...

    def token_nll(self, batch: Batch) -> Tensor:
        """The nll of each supervised token, in the order of the rows."""
        ...


class OwnCase(NamedTuple):
    """What the trained model makes of a case."""

    log_probs: tuple[float, ...]
    """Of the answer's tokens."""
    rounded: tuple[float, ...]
    """The same, computed with other rounding (see `sft.model.attention.other_rounding`)."""
    answer: tuple[int, ...]


def compute_cases(
    model: ComputingModel,
    cases: Sequence[Case],
    layout: Layout,
    decoding: Decoding,
    stop_ids: Sequence[int],
    device: torch.device,
    tell: Tell = lambda: None,
) -> list[OwnCase]:
    """What the model makes of each case, in their order.

    Args:
        model: the model.
        cases: what is computed.
        layout: how training lays out examples.
        decoding: how models of the class write.
        stop_ids: the tokens that end an answer; at least one.
        device: where the model is.
        tell: called while it computes.
    """
    rows = [(case.ids, case.start) for case in cases]
    found = log_probs(model, rows, layout)
    with other_rounding(model.hf_model, layout):
        rounded = log_probs(model, rows, layout)
    tell()
    style, answers = Style(tuple(stop_ids)), []
    with answering(model.hf_model, decoding.attention):
        for case in cases:
            prompted = Prompted(case.name, case.prompt_ids, case.max_new_tokens)
            (written,) = write_answers(model.hf_model, [prompted], style, device, decoding.caches, tell=tell)
            answers.append(written.ids)
    return [OwnCase(*each) for each in zip(found, rounded, answers, strict=True)]


def log_probs(
    model: ComputingModel, rows: Sequence[tuple[Sequence[int], int]], layout: Layout
) -> list[tuple[float, ...]]:
    """That of each token from a row's start on, in nats; rows of (ids, start), laid out as in training."""
    found: dict[int, tuple[float, ...]] = {}
    for part in _parts([len(ids) for ids, _ in rows]):
        pack = Pack(
            0,
            np.array(part),
            np.concatenate([np.array(rows[i][0], dtype=np.int64) for i in part]),
            np.concatenate([np.arange(len(rows[i][0])) >= rows[i][1] for i in part]),
            np.cumsum([0, *(len(rows[i][0]) for i in part)]),
        )
        slots = len(part) * max(len(rows[i][0]) for i in part)
        for batch in [collate([pack])] if layout == "packed" else collate_rows([pack], slots):
            values = -model.token_nll(batch).double()
            for segment, i in enumerate(batch.example_ids):
                found[i] = tuple(values[batch.segments_S == segment].tolist())
    return [found[i] for i in range(len(rows))]


def _parts(lengths: Sequence[int]) -> list[list[int]]:
    """Which rows lie in a pack together, in their order."""
    parts: list[list[int]] = [[]]
    for i, length in enumerate(lengths):
        if parts[-1] and sum(lengths[j] for j in parts[-1]) + length > _PACK_TOKENS:
            parts.append([])
        parts[-1].append(i)
    return parts
