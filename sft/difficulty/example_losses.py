"""The losses of an example's answers for a model: behind their prompt, and without it.

    behind the prompt   <user> … <assistant> a n s w e r <end>      what training adds up
    alone                              <bos> a n s w e r <end>      the same tokens, behind nothing

The loss alone says how unusual the answer is as a text; the quotient of both, how much the prompt helps with it: the
instruction-following difficulty, IFD (Li et al. 2023, arXiv 2308.12032). Near 0, the prompt all but says the answer;
1 or more, the model sees nothing in the prompt that leads to the answer, as where both do not belong together. All
learned tokens count, so the answers of a conversation stand alone one behind the other.

A first token that nothing stands before has no loss: without a token that begins texts, it counts in neither of the two
losses that are compared.
"""

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
from torch import Tensor

from sft.data.collate import Batch, Layout, collate, collate_rows
from sft.difficulty.loss_table import Floats
from sft.row_plan import row_batches
from sft.schema import BoolArray, Example, IntArray, Pack


class TokenLosses(Protocol):
    """A model (see `sft.answering.whole_model.WholeModel`)."""

    def token_nll(self, batch: Batch) -> Tensor:
        """The negative log-likelihood of each supervised token, in the order of the rows: (S,)."""
        ...


def example_losses(
    model: TokenLosses, examples: Sequence[Example], begins: int | None, layout: Layout, max_slots: int
) -> Floats:
    """The losses of some examples: (num_examples, 5), see `sft.difficulty.loss_table.COLUMNS`.

    Args:
        model: the model.
        examples: as they are trained.
        begins: the id of the token that begins texts; None where the tokenizer has none.
        layout: how examples are laid out for the model.
        max_slots: the most tokens that the model reads at once, or the length of an example that is longer.
    """
    alone = [_alone(example, begins) for example in examples]
    has_beginning = np.array([example.input_ids[:1].tolist() == [begins] for example in examples], dtype=bool)
    behind, behind_first, num_tokens = _sums(model, examples, layout, max_slots)
    by_itself, _, num_compared = _sums(model, alone, layout, max_slots)
    compared = np.where(has_beginning, behind, behind - behind_first)
    return np.stack([behind, num_tokens, compared, by_itself, num_compared], axis=1)


def _alone(example: Example, begins: int | None) -> Example:
    """The learned tokens; in front of them the token that begins texts, if the example has it."""
    learned = example.input_ids[example.loss_mask]
    if example.input_ids[:1].tolist() == [begins]:
        learned = np.concatenate([example.input_ids[:1], learned])
    return Example(learned, np.arange(len(learned)) > 0)


def _sums(
    model: TokenLosses, examples: Sequence[Example], layout: Layout, max_slots: int
) -> tuple[Floats, Floats, Floats]:
    """Of each example: the loss of its learned tokens, that of the first of them, and how many they are."""
    total, first, num = np.zeros((3, len(examples)))
    for batch in _batches(examples, layout, max_slots):
        nll = model.token_nll(batch).double().numpy()
        segments = batch.segments_S.numpy()
        ids = np.array(batch.example_ids)[segments]
        np.add.at(total, ids, nll)
        np.add.at(num, ids, 1)
        starts = np.flatnonzero(np.diff(segments, prepend=-1))
        first[ids[starts]] = nll[starts]
    return total, first, num


def _batches(examples: Sequence[Example], layout: Layout, max_slots: int) -> Iterator[Batch]:
    lengths = np.array([len(example.input_ids) for example in examples], dtype=np.int64)
    # An example in which nothing is learned has nothing to read.
    rows = np.flatnonzero([example.loss_mask.any() for example in examples])
    longest = int(max(max_slots, lengths[rows].max(initial=0)))
    if layout == "one_example":
        if len(rows):
            yield from collate_rows([_pack(examples, rows)], longest)
        return
    # Rows of like length would be as good; packed, it matters to nobody which stand together.
    for chosen in row_batches(lengths[rows], longest):
        yield collate([_pack(examples, rows[chosen])])


def _pack(examples: Sequence[Example], rows: IntArray) -> Pack:
    ids: list[IntArray] = [examples[row].input_ids for row in rows]
    masks: list[BoolArray] = [examples[row].loss_mask for row in rows]
    bounds = np.concatenate([[0], np.cumsum([len(part) for part in ids])])
    return Pack(0, rows, np.concatenate(ids), np.concatenate(masks), bounds)
