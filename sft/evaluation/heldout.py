"""Metrics of a forward pass over held-out examples, by task. Each rank runs a share of the packs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from sft.data.collate import Batch, Layout
from sft.data.loader import StepLoader
from sft.data.planning.pack_plan import PackPlan
from sft.data.token_store import TokenStore
from sft.evaluation.scores import LOSS, TOKEN_ACCURACY, Sums
from sft.model.loss import TokenMeasure, is_first_choice, token_nll
from sft.ranks.ranks import Ranks
from sft.scoring.metric import Metric
from sft.step_plan import StepPlan

TOKEN_METRICS: Mapping[str, tuple[Metric, TokenMeasure]] = {
    "loss": (LOSS, token_nll),
    "token_accuracy": (
        TOKEN_ACCURACY,
        is_first_choice,
    ),
}
"""What is measured for each supervised token, given all tokens before it in the example."""


@dataclass(frozen=True, slots=True)
class HeldoutSet:
    """What is measured: packs of held-out examples, and the tasks that no stage trains on."""

    store: TokenStore
    plan: PackPlan
    unseen_tasks: tuple[str, ...] = ()


class Measurable(Protocol):
    """What is measured: an engine, or a whole model."""

    @property
    def ranks(self) -> Ranks:
        """The ranks that share the packs."""
        ...

    def segment_sums(self, batch: Batch, measures: Sequence[TokenMeasure]) -> torch.Tensor:
        """See `sft.engine.engine.Engine`."""
        ...


@dataclass(frozen=True, slots=True)
class TokenEvaluator:
    """`Evaluator` of all `TOKEN_METRICS`, in one pass."""

    engine: Measurable
    heldout: HeldoutSet
    tell: Callable[[], None] = lambda: None
    """Called before each micro-batch, for whoever watches whether there is progress."""
    layout: Layout = "packed"
    """How examples are laid out for the model, as in training."""

    @property
    def metrics(self) -> Mapping[str, Metric]:
        """See `TOKEN_METRICS`."""
        return {name: metric for name, (metric, _) in TOKEN_METRICS.items()}

    def measure(self) -> Sums:
        """See `Evaluator`."""
        store, plan, world = self.heldout.store, self.heldout.plan, self.engine.ranks.world
        steps = StepPlan(len(plan), world.data_size, world.data_size, 1)
        part = world.sequence_place
        loader = StepLoader(
            store, plan, steps, world.data_rank, layout=self.layout, part=part, num_parts=world.num_parts
        )
        measures = [measure for _, measure in TOKEN_METRICS.values()]
        # Columns: the metrics, supervised tokens, examples.
        sums = torch.zeros(len(store.tasks), len(measures) + 2, dtype=torch.float64)
        for i in range(steps.num_steps):
            for batch in loader.micro_batches(i):
                self.tell()
                measured = self.engine.segment_sums(batch, measures)
                if batch.example_ids:
                    ids = np.array(batch.example_ids)
                    # Ranks that share a row add up what each has measured of it, and count its examples once.
                    counts = np.stack([store.num_supervised[ids], np.ones(len(ids))], 1) * world.speaks_for_group
                    rows = torch.cat([measured[: len(ids)], torch.from_numpy(counts)], 1)
                    sums.index_add_(0, torch.from_numpy(store.task_ids[ids].astype(np.int64)), rows)
        totals = self.engine.ranks.sum(sums).tolist()
        return {
            task: {**dict(zip(TOKEN_METRICS, row, strict=False)), LOSS.over: int(row[-2]), "num_examples": int(row[-1])}
            for task, row in zip(store.tasks, totals, strict=True)
            if row[-1]
        }
