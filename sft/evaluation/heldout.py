"""The loss on held-out examples, by task. Each rank measures its share of the packs; the sums are added up."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sft.atomic_files import write_json
from sft.data.collate import Layout
from sft.data.loader import StepLoader
from sft.data.planning.pack_plan import PackPlan
from sft.data.token_store import TokenStore
from sft.engine.engine import Engine
from sft.step_plan import StepPlan


@dataclass(frozen=True, slots=True)
class HeldoutSet:
    """What is measured: packs of held-out examples, and the tasks that training never sees."""

    store: TokenStore
    plan: PackPlan
    unseen_tasks: tuple[str, ...]


def measure_heldout(
    engine: Engine,
    heldout: HeldoutSet,
    name: str,
    step: int | None = None,
    tell: Callable[[], None] = lambda: None,
    layout: Layout = "packed",
) -> dict[str, Any]:
    """The mean nll of each task's supervised tokens, in nats; all ranks call this together.

    Args:
        engine: holds the model.
        heldout: what is measured.
        name: of the model, for the result.
        step: after which it is measured, for the result.
        tell: called before each micro-batch, for whoever watches whether there is progress.
        layout: how examples are laid before the model, as in training.

    Returns:
        `{"name", "step", "loss", "tasks": {task: {"loss", "num_supervised_tokens", "num_examples", "unseen"}}}`
    """
    store, plan, world = heldout.store, heldout.plan, engine.ranks.world
    steps = StepPlan(len(plan), world.size, world.size, 1)
    loader = StepLoader(store, plan, steps, world.rank, layout=layout)
    # Columns: nll, supervised tokens, examples.
    sums = torch.zeros(len(store.tasks), 3, dtype=torch.float64)
    for i in range(steps.num_steps):
        for batch in loader.micro_batches(i):
            tell()
            nll = engine.segment_nll(batch)
            if batch.example_ids:
                ids = np.array(batch.example_ids)
                rows = torch.stack(
                    [
                        nll,
                        torch.from_numpy(store.num_supervised[ids].astype(np.float64)),
                        torch.ones(len(ids)),
                    ],
                    1,
                )
                sums.index_add_(0, torch.from_numpy(store.task_ids[ids].astype(np.int64)), rows.double())
    totals = engine.ranks.sum(sums)
    tasks = {
        task: {
            "loss": float(nll / num_supervised),
            "num_supervised_tokens": int(num_supervised),
            "num_examples": int(num_examples),
            "unseen": task in heldout.unseen_tasks,
        }
        for task, (nll, num_supervised, num_examples) in zip(store.tasks, totals.tolist(), strict=True)
        if num_examples
    }
    nll, num_supervised, _ = totals.sum(0).tolist()
    return {"name": name, "step": step, "loss": nll / num_supervised, "tasks": tasks}


def write_evaluation(folder: Path, file_name: str, evaluation: dict[str, Any]) -> None:
    """Keep an evaluation in the run folder."""
    write_json(folder / f"{file_name}.json", evaluation)
