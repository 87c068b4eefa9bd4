"""More budget for a stage that has trained: the plan so far stays as it is, and more is planned behind it.

    packs      a a a a │ b b b        2 steps of 4 packs, the last one with 3
    packs-2    a a a a │ b b b │ c c c c │ d d        the same, followed by a new part

So the new plan repeats exactly what was fed, and a trained step is never packed again. The new part continues drawing
where the stage ended, as if the whole budget had been set from the start. It has a learning rate of its own: its
schedule runs from its first step to its last. An extension with which nothing was trained may be planned again.
"""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, NamedTuple

import numpy as np

from sft.config import StageConfig
from sft.config_effects import completed, inputs_of
from sft.config_optimizer import OptimizerConfig
from sft.data.planning.budget import Drawn, Packed, budget_in_words
from sft.data.planning.pack_plan import PackPlan, PlanPart
from sft.errors import UserError
from sft.ledger import read_ledger
from sft.run_folder import StageFolder
from sft.schema import IntArray


class Kept(NamedTuple):
    """What an extended stage keeps: the parts of its plan, and their packs."""

    plan: PackPlan
    parts: tuple[PlanPart, ...]

    @property
    def num_packs(self) -> int:
        """Of all parts."""
        return sum(part.num_packs for part in self.parts)

    @property
    def example_ids(self) -> IntArray:
        """The examples of the kept packs, pack after pack."""
        return np.asarray(self.plan.example_ids[: self.plan.starts[self.num_packs]])

    @property
    def drawn(self) -> Drawn:
        """What was drawn for the kept packs."""
        part_steps = self.plan.steps().part_steps
        return Drawn(self.example_ids, sum(part_steps[: len(self.parts)]))

    def with_more(self, order: IntArray, added: Packed) -> tuple[IntArray, Packed]:
        """The examples of all packs, and the packs: the kept ones, then the added ones (see `fill_budget`)."""
        starts = np.asarray(self.plan.starts[: self.num_packs + 1])
        whole = np.concatenate([self.example_ids, order[added.positions]])
        return whole, Packed(np.arange(len(whole)), np.concatenate([starts, starts[-1] + added.starts[1:]]))


def schedule_of(optimizer: OptimizerConfig, recorded: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The fields that give the learning rate. The added part may have other values: the rate is a function of the step.

    Args:
        optimizer: the current config.
        recorded: recorded fields of an optimizer; their values are returned instead, in the current form.
    """
    now = inputs_of(optimizer, "rate")
    if recorded is None:
        return now
    whole = completed(optimizer, recorded)
    return {name: whole[name] for name in now}


def is_wanted_still(plan: PackPlan, stage: StageConfig) -> bool:
    """Whether the newest part of an extended stage has the learning rate of the config."""
    optimizer = stage.optimizer
    return not plan.parts or schedule_of(optimizer, plan.parts[-1].schedule) == schedule_of(optimizer)


def kept_of(folder: StageFolder, stage: StageConfig, plan: PackPlan, recorded: Mapping[str, Any]) -> Kept:
    """What a stage keeps whose budget has changed.

    Args:
        folder: the stage's folder.
        stage: its current config.
        plan: its newest plan.
        recorded: the stage in the run's record; it belongs to this plan if the stage was never extended.
    """
    whole = PlanPart(len(plan), plan.manifest["inputs"]["budget"], recorded["optimizer"])
    parts = tuple(
        PlanPart(part.num_packs, part.budget, schedule_of(stage.optimizer, part.schedule))
        for part in plan.parts or (whole,)
    )
    if len(parts) > 1:
        first_step = sum(plan.steps().part_steps[:-1])
        if max(read_ledger(folder.ledger).effective, default=-1) < first_step:
            parts = parts[:-1]
    return Kept(plan, parts)


def described_parts(kept: Kept, stage: StageConfig, num_added: int) -> list[dict[str, Any]]:
    """What the manifest of the new plan says about its parts.

    Raises:
        UserError: nothing is added, or the learning rate of the kept part has changed.
    """
    budget, schedule = stage.budget.model_dump(mode="json"), schedule_of(stage.optimizer)
    if num_added:
        return [*map(asdict, kept.parts), asdict(PlanPart(num_added, budget, schedule))]
    last = kept.parts[-1]
    was, now = budget_in_words(last.budget), budget_in_words(budget)
    if was != now:
        raise UserError(
            f"stage {stage.name}: its budget was {was} and is now {now}, which is not more: {kept.drawn.num_steps:,} "
            "steps are planned, and some of them are trained. A stage that has trained can only get more. Set the "
            "budget back, or make it larger."
        )
    if last.schedule != schedule:
        changed = [
            f"{key} was {value!r} and is now {schedule[key]!r}"
            for key, value in last.schedule.items()
            if schedule[key] != value
        ]
        raise UserError(
            f"stage {stage.name}: {', '.join(changed)}, but planned steps keep their learning rate. Set it back, or "
            "give the stage a larger budget: the new rate then applies to the added steps."
        )
    return [*map(asdict, kept.parts)]
