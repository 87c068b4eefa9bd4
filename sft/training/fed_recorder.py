"""Gathers what all ranks fed in a step; the first rank writes it into the stage's ledger."""

from collections.abc import Sequence
from pathlib import Path

import torch

from sft.data.collate import Batch
from sft.engine.engine import Engine
from sft.ledger import LedgerWriter, entry_from_slots, slots_of
from sft.step_plan import StepPlan


class FedRecorder:
    """The ledger of a stage, as one rank sees it."""

    def __init__(self, engine: Engine, steps: StepPlan, attempt: int, first_step: int, file: Path) -> None:
        """This attempt trains from `first_step` on: what the ledger has of later steps is rolled back."""
        self._engine = engine
        self._attempt = attempt
        self._slots_per_rank = steps.micro_batches_per_step * steps.micro_packs
        self._ledger: LedgerWriter | None = None
        if engine.world.is_first:
            self._ledger = LedgerWriter(file, attempt)
            self._ledger.resume(first_step)

    def __call__(self, step: int, micro_batches: Sequence[Batch], is_update: bool) -> None:
        """Record one step; all ranks call it together, each with its own micro-batches."""
        world = self._engine.world
        fed = [pack for batch in micro_batches for pack in batch.fed]
        slots = torch.tensor(slots_of(fed, world.rank, world.size, self._slots_per_rank), dtype=torch.int64)
        summed = self._engine.all_reduce_sum(slots)
        if self._ledger is not None:
            self._ledger.append(entry_from_slots(step, self._attempt, world.size, summed.tolist(), is_update))

    def sync(self) -> None:
        """Bring the ledger to the disk; by the first rank, before a checkpoint of these steps is published."""
        assert self._ledger is not None
        self._ledger.sync()
