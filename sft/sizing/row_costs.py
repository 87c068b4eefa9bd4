"""The cost of one example a row, computed from the plans of `sft prepare`."""

from typing import NamedTuple

import numpy as np

from sft.config import SftConfig
from sft.data.planning.pack_plan import PackPlan
from sft.data.token_store import TokenStore
from sft.row_plan import row_cost
from sft.step_plan import real_packs

_MOST_STEPS = 100
"""How many steps to look at, evenly over the stage."""


class RowsOfStage(NamedTuple):
    """Means over the steps of a stage."""

    batches: float
    """Forward and backward passes of each worker in a step."""
    packed_batches: int
    """The same if examples are packed."""
    padding: float
    """The share of slots that hold padding."""


def rows_of_stage(  # noqa: PLR0913  (what a pass holds depends on all of them)
    config: SftConfig, index: int, plan: PackPlan, store: TokenStore, num_workers: int, packs_per_micro_batch: int
) -> RowsOfStage:
    """The cost of a stage in rows, with this number of workers, and the slots of so many packs in a batch."""
    by_pack = config.model.dropout == "as_configured"
    steps = plan.steps(config.train.num_groups(num_workers), packs_per_micro_batch)
    max_slots = packs_per_micro_batch * config.pack_len_tokens(index)
    looked_at = np.unique(np.linspace(0, steps.num_steps - 1, _MOST_STEPS).astype(int))
    batches, slots, tokens = [], 0, 0
    for step in looked_at.tolist():
        ranks = []
        for micro_batches in steps.dealt(step):
            lengths = [store.lengths[plan.pack_examples(pack)] for pack in real_packs(micro_batches)]
            ranks.append(lengths if by_pack or not lengths else [np.concatenate(lengths)])
            tokens += sum(int(of_pack.sum()) for of_pack in lengths)
        cost = row_cost(ranks, max_slots)
        batches.append(cost.num_batches)
        slots += cost.num_slots
    return RowsOfStage(float(np.mean(batches)), steps.micro_batches_per_step, 1 - tokens / slots)
