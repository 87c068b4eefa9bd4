"""What the ranks tell each other after a step is one collective, as long as there are ranks and packs; counted here.

What it takes in time is in docs/BENCHMARKS.md.
"""

import copy
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from sft.errors import TrainingError
from sft.ledger import entry_from_slots
from sft.step_plan import StepPlan
from sft.training.step_exchange import StepDecision, StepExchange, StepSummary
from sft.training.step_recorder import slowest_of
from sft.world import World
from tests.checkpoint.ranks import Rank, run_ranks


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
        batch: Any = SimpleNamespace(fed=[(7, 99)], example_lengths=torch.tensor([3]))
        summary = StepExchange(engine, steps)([batch], StepDecision(save=True), 0.25)
        assert summary.decision == StepDecision(save=True)
        assert summary.input_wait_seconds == 0.25
        assert entry_from_slots(0, 1, size, summary.slots, True).packs == range(7, 8)
        (num_told,) = ranks.told
        told.append((num_told - 5) / size)
    # A pace, a wait and its packs; for all together a decision, a sum and a digest.
    assert told == [2 + packs_per_rank] * 5


def exchanged(fed: list[list[tuple[int, int]]], sequence_parallel: int) -> list[StepSummary]:
    """What each rank, which fed these packs, knows after a step; a pack has one example of 3 tokens."""

    def main(rank: Rank) -> StepSummary:
        engine: Any = SimpleNamespace(ranks=rank, hf_model=torch.nn.Linear(2, 2))
        batches: list[Any] = [
            SimpleNamespace(fed=[pack], example_lengths=torch.tensor([3])) for pack in fed[rank.world.rank]
        ]
        return StepExchange(engine, StepPlan(4, 4, rank.world.data_size, 1))(batches, StepDecision(), 0.0)

    return run_ranks(len(fed), main, sequence_parallel)


def test_ranks_that_share_rows_count_what_they_fed_once() -> None:
    first, second = [(7, 2**63 - 1), (8, 5)], [(9, 2**62)]
    (summary,) = set(exchanged([first, first, second, second, []], 2))
    alone = exchanged([first, second], 1)[0]
    assert summary.squared_lengths == alone.squared_lengths == 27
    entry, expected = (entry_from_slots(0, 1, 2, s.slots, True) for s in (summary, alone))
    assert entry == expected
    assert entry.packs == range(7, 10)


@pytest.mark.parametrize("other", [[(8, 5), (7, 1)], [(7, 1)], [(7, 1), (8, 6)], []])
def test_ranks_that_share_rows_and_fed_other_packs_are_found(other: list[tuple[int, int]]) -> None:
    fed = [(7, 1), (8, 5)]
    for place in (0, 1, 2):
        group = [other if place == p else fed for p in range(3)]
        with pytest.raises(TrainingError, match="ranks 3 to 5 share micro-batches .* have not read the same packs"):
            exchanged([fed] * 3 + group, 3)


def test_a_rank_without_packs_is_not_taken_for_a_slow_one() -> None:
    """Such as the third of three, of which two share rows: it runs the two tokens of an empty micro-batch."""
    model = torch.nn.Linear(64, 64)

    def main(rank: Rank) -> StepSummary:
        own: Any = SimpleNamespace(ranks=rank, hf_model=copy.deepcopy(model))
        exchange = StepExchange(own, StepPlan(1, 1, 1, 1))
        is_left = rank.world.data_rank == rank.world.data_size
        own.hf_model(torch.zeros(2 if is_left else 512, 64))
        batch: Any = SimpleNamespace(fed=[] if is_left else [(0, 5)], example_lengths=torch.tensor([3]))
        return exchange([batch], StepDecision(), 0.0)

    (summary,) = set(run_ranks(3, main, 2))
    *feeding, left = summary.seconds_per_token
    assert min(feeding) > 0 == left
    slowest, slowdown = slowest_of(summary.seconds_per_token)
    assert slowest in (0, 1)
    assert slowdown == max(feeding) / (sum(feeding) / 2)
    assert slowest_of([0.0, 0.0]) == (0, 1.0)
    assert slowest_of([0.0, 1.0, 3.0, 1.0]) == (2, 3.0)
