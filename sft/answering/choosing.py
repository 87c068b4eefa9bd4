"""A model chooses among options by their likelihood (T0's rank classification, Sanh et al. 2021, arXiv 2110.08207).

An option's likelihood is that of the tokens that training would learn if the option were the answer: its words and the
end of the turn. So the same forward pass computes it as in training, packed or one example a row, on any engine.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from torch import Tensor

from sft.data.collate import Batch, Layout, collate, collate_rows, empty_batch
from sft.model.loss import TokenMeasure, token_nll
from sft.questions.question import Option
from sft.schema import Pack


class SegmentSums(Protocol):
    """What an engine, or a whole model, computes for it (see `sft.engine.engine.Engine`)."""

    def segment_sums(self, batch: Batch, measures: Sequence[TokenMeasure]) -> Tensor:
        """Each measure added up over the supervised tokens of each segment."""
        ...


def log_likelihoods(model: SegmentSums, options: Sequence[Option], layout: Layout) -> list[float]:
    """The log-likelihood of each option, in nats; of none, the rank only takes part in the forward pass.

    It is one forward pass on every rank.
    """
    if not options:
        model.segment_sums(empty_batch(layout), [token_nll])
        return []
    lengths = [len(option.ids) for option in options]
    masks = [np.arange(len(option.ids)) >= option.start for option in options]
    pack = Pack(
        0,
        np.arange(len(options)),
        np.concatenate([np.array(option.ids, dtype=np.int64) for option in options]),
        np.concatenate(masks),
        np.concatenate([[0], np.cumsum(lengths)]),
    )
    batches = [collate([pack])] if layout == "packed" else collate_rows([pack], len(lengths) * max(lengths))
    result = [0.0] * len(options)
    for batch in batches:
        sums = model.segment_sums(batch, [token_nll])[:, 0].tolist()
        for i, nll in zip(batch.example_ids, sums, strict=False):
            result[i] = -nll
    return result
