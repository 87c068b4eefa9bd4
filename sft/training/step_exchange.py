"""What the ranks exchange after a step, in one collective: what they fed, how fast they are, what comes next."""

from collections.abc import Sequence
from typing import NamedTuple

import torch

from sft.data.collate import Batch
from sft.engine.engine import Engine
from sft.engine.layer_clock import LayerClock
from sft.errors import TrainingError
from sft.ledger import Fed, fed_check, is_same_fed, slots_of
from sft.step_plan import StepPlan

_PICOSECONDS = 1e12
_MICROSECONDS = 1e6


class StepDecision(NamedTuple):
    """What all ranks do next, as the first one decides."""

    stop: bool = False
    save: bool = False
    resize: bool = False
    """Restart with more ranks."""


class StepSummary(NamedTuple):
    """What every rank knows about a step after it."""

    decision: StepDecision
    seconds_per_token: tuple[float, ...]
    """By rank: time of one layer's forward pass (see `LayerClock`); 0 of a rank that fed nothing in this step."""
    input_wait_seconds: float
    """The longest that a rank waited for its micro-batches."""
    squared_lengths: int
    """The sum of the squares of all examples' lengths in tokens: the work of attention."""
    slots: tuple[int, ...]
    """The sum of all ranks' `sft.ledger.slots_of`."""


class StepExchange:
    """Exchanges the summaries; all ranks call it after each step."""

    def __init__(self, engine: Engine, steps: StepPlan) -> None:
        """`steps` says how many packs a rank feeds at most."""
        self._engine = engine
        self._clock = LayerClock(engine.hf_model)
        self._slots_per_rank = steps.micro_batches_per_step * steps.packs_per_micro_batch

    def __call__(
        self, micro_batches: Sequence[Batch], decision: StepDecision, input_wait_seconds: float
    ) -> StepSummary:
        """Exchange what the ranks fed in the step, and how long this one waited for it.

        The first rank's `decision` counts; others pass an empty one. What ranks fed that share micro-batches counts
        once.

        Raises:
            TrainingError: on all ranks: they did not feed the same.
        """
        world = self._engine.ranks.world
        fed = [pack for batch in micro_batches for pack in batch.fed]
        same = self._checked(fed)
        pace = self._clock.take()
        if not fed:
            pace = 0.0  # it ran empty micro-batches, whose few tokens take more time each
        if not world.speaks_for_group:
            micro_batches, fed = (), []
        paces, waits = [0] * world.size, [0] * world.size
        paces[world.rank] = round(pace * _PICOSECONDS)
        waits[world.rank] = round(input_wait_seconds * _MICROSECONDS)
        squares = sum(int(batch.example_lengths.long().square().sum()) for batch in micro_batches)
        slots = slots_of(fed, world.data_rank, world.data_size, self._slots_per_rank)
        own = torch.tensor([*decision, squares, *same, *paces, *waits, *slots], dtype=torch.int64)
        stop, save, resize, squares, *rest = self._engine.ranks.sum(own).tolist()
        same, rest = rest[: len(same)], rest[len(same) :]
        self._refuse_different(same)
        paces, waits, slots = rest[: world.size], rest[world.size : 2 * world.size], rest[2 * world.size :]
        seconds_per_token = tuple(picoseconds / _PICOSECONDS for picoseconds in paces)
        decided = StepDecision(bool(stop), bool(save), bool(resize))
        return StepSummary(decided, seconds_per_token, max(waits) / _MICROSECONDS, squares, tuple(slots))

    def _checked(self, fed: Fed) -> list[int]:
        """For each group of ranks that share micro-batches a number whose sum is 0 if they fed the same."""
        world = self._engine.ranks.world
        if world.sequence_parallel == 1:
            return []
        checks = [0] * world.data_size
        if world.data_rank < world.data_size:
            checks[world.data_rank] = fed_check(fed, world.sequence_place, world.sequence_parallel)
        return checks

    def _refuse_different(self, checks: Sequence[int]) -> None:
        different = [group for group, check in enumerate(checks) if not is_same_fed(check)]
        if different:
            each = self._engine.ranks.world.sequence_parallel
            ranks = " and ".join(f"ranks {group * each} to {group * each + each - 1}" for group in different)
            raise TrainingError(
                f"{ranks} share micro-batches (train.sequence_parallel), but have not read the same packs: a disk or "
                "the memory of a node is damaged. Nothing of this step is saved; go on without this node.",
                is_everywhere=True,
            )
