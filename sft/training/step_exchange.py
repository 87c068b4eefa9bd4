"""What the ranks exchange after a step, in one collective: what they fed, how fast they are, what comes next."""

from collections.abc import Sequence
from typing import NamedTuple

import torch

from sft.data.collate import Batch
from sft.engine.engine import Engine
from sft.engine.layer_clock import LayerClock
from sft.ledger import slots_of
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
    """By rank: time of one layer's forward pass (see `LayerClock`)."""
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

        The first rank's `decision` counts; others pass an empty one.
        """
        world = self._engine.ranks.world
        fed = [pack for batch in micro_batches for pack in batch.fed]
        paces, waits = [0] * world.size, [0] * world.size
        paces[world.rank] = round(self._clock.take() * _PICOSECONDS)
        waits[world.rank] = round(input_wait_seconds * _MICROSECONDS)
        lengths = [batch.cu_seqlens.diff().long() for batch in micro_batches if batch.example_ids]
        squares = sum(int(of_batch.square().sum()) for of_batch in lengths)
        own = [*decision, squares, *paces, *waits, *slots_of(fed, world.rank, world.size, self._slots_per_rank)]
        stop, save, resize, squares, *rest = self._engine.ranks.sum(torch.tensor(own, dtype=torch.int64)).tolist()
        paces, waits, slots = rest[: world.size], rest[world.size : 2 * world.size], rest[2 * world.size :]
        seconds_per_token = tuple(picoseconds / _PICOSECONDS for picoseconds in paces)
        decided = StepDecision(bool(stop), bool(save), bool(resize))
        return StepSummary(decided, seconds_per_token, max(waits) / _MICROSECONDS, squares, tuple(slots))
