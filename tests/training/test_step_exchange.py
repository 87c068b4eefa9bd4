"""What the ranks tell each other after a step is one collective, as long as there are ranks and packs; counted here.

What it takes in time is in docs/BENCHMARKS.md.
"""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from sft.ledger import entry_from_slots
from sft.step_plan import StepPlan
from sft.training.step_exchange import StepDecision, StepExchange
from sft.world import World


class OfMany:
    """One of so many ranks, of which the others have nothing to say."""

    def __init__(self, size: int) -> None:
        self.world = World(0, size)
        self.told: list[int] = []

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        self.told.append(values.numel())
        return values


@pytest.mark.parametrize("packs_per_rank", [1, 3])
def test_a_step_is_one_collective_of_a_few_numbers_for_each_rank(packs_per_rank: int) -> None:
    told = []
    for size in (1, 8, 64, 512, 4096):
        ranks = OfMany(size)
        engine: Any = SimpleNamespace(ranks=ranks, hf_model=torch.nn.Linear(2, 2))
        steps = StepPlan(10 * size * packs_per_rank, size * packs_per_rank, size, 1)
        batch: Any = SimpleNamespace(fed=[(7, 99)], example_ids=[1], cu_seqlens=torch.tensor([0, 3]))
        summary = StepExchange(engine, steps)([batch], StepDecision(save=True))
        assert summary.decision == StepDecision(save=True)
        assert entry_from_slots(0, 1, size, summary.slots, True).packs == range(7, 8)
        (num_told,) = ranks.told
        told.append((num_told - 5) / size)
    # A pace and its packs; for all together a decision, a sum and a digest.
    assert told == [1 + packs_per_rank] * 5
