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

    def __call__(self, micro_batches: Sequence[Batch], decision: StepDecision) -> StepSummary:
        """Exchange what the ranks fed in the step. The first rank's `decision` counts; others pass an empty one."""
        world = self._engine.ranks.world
        fed = [pack for batch in micro_batches for pack in batch.fed]
        pace = [0] * world.size
        pace[world.rank] = round(self._clock.take() * _PICOSECONDS)
        lengths = [batch.cu_seqlens.diff().long() for batch in micro_batches if batch.example_ids]
        squares = sum(int(of_batch.square().sum()) for of_batch in lengths)
        own = [*decision, squares, *pace, *slots_of(fed, world.rank, world.size, self._slots_per_rank)]
        stop, save, resize, squares, *rest = self._engine.ranks.sum(torch.tensor(own, dtype=torch.int64)).tolist()
        paces, slots = rest[: world.size], rest[world.size :]
        seconds_per_token = tuple(picoseconds / _PICOSECONDS for picoseconds in paces)
        return StepSummary(StepDecision(bool(stop), bool(save), bool(resize)), seconds_per_token, squares, tuple(slots))
