"""Draws and packs as much as a stage's budget says: epochs, tokens of either kind, or steps.

Examples vary in length, so how many fill a budget is known only after they are drawn and packed. A draw that falls
short is repeated with a larger size; the surplus is cut off at the end. Each draw is a pure function of its seed.

A stage that is extended has drawn already. The new draws leave out what it drew, and the rest keeps the order of the
draws: each task continues where it ended, and no example comes again before all others of its task.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from sft.config import StageConfig
from sft.data.planning.mixture import Rates, TaskSupply, allot, draw
from sft.data.planning.packing import pack_order
from sft.data.token_store import TokenStore
from sft.errors import UserError
from sft.schema import IntArray


class Packed(NamedTuple):
    """An order in packs: positions in it, pack after pack, and where each pack starts (see `pack_order`)."""

    positions: IntArray
    starts: IntArray


class Drawn(NamedTuple):
    """What a stage drew before it was extended: its examples, in any order, and the number of their steps."""

    example_ids: IntArray
    num_steps: int


NOTHING = Drawn(np.zeros(0, np.int64), 0)


@dataclass(frozen=True, slots=True)
class Packing:
    """The shape of a stage's packs and steps."""

    pack_len_tokens: int
    packs_per_step: int
    seed: int

    def pack(self, order: IntArray, store: TokenStore) -> Packed:
        """The order in packs."""
        lengths, tasks = store.lengths[order], store.task_ids[order]
        return Packed(*pack_order(lengths, order, tasks, self.pack_len_tokens, self.packs_per_step, self.seed))


@dataclass(frozen=True, slots=True)
class Drawing:
    """What a stage draws from, and at which rates; `own_units` is the sum of its own tasks, the size of an epoch."""

    stage: StageConfig
    supplies: Mapping[str, TaskSupply]
    rates: Rates
    own_units: int
    seed: int
    drawn: Drawn = NOTHING

    @property
    def limits(self) -> dict[str, float]:
        """The most units of each task."""
        epochs = self.stage.mixture.max_epochs_per_task or math.inf
        return {task: epochs * self.supplies[task].units for task in self.rates}

    @property
    def num_units_wanted(self) -> float | None:
        """The units that a budget of epochs asks for; None for other budgets."""
        epochs = self.stage.budget.epochs
        return None if epochs is None else epochs * self.own_units

    @property
    def ends_early(self) -> bool:
        """Whether the limits on repetition end the stage before its epochs. For other budgets that is an error."""
        wanted = self.num_units_wanted
        return wanted is not None and wanted > sum(self.limits.values()) * (1.0 + 1e-9)

    def order(self, total_units: float) -> IntArray:
        """Examples of `total_units` units in the stage's order, without those drawn already."""
        order = draw(self.supplies, allot(self.rates, total_units, self.limits), self.seed)
        return without_drawn(order, self.drawn.example_ids) if self.drawn.num_steps else order

    def growing_orders(self, num_units: float) -> Iterator[IntArray]:
        """Orders of about `num_units` units, then of more and more up to the limits; without those drawn already."""
        most_units = sum(self.limits.values())
        total_units = 1.01 * num_units
        while total_units < most_units:
            yield self.order(total_units)
            total_units *= 1.2
        yield self.order(most_units)

    def mean_per_unit(self, field: str) -> float:
        """How much of `field` (a count of `TaskSupply`) one unit brings."""
        counts = {task: int(getattr(self.supplies[task], field)) for task in self.rates}
        return sum(rate * counts[task] / self.supplies[task].units for task, rate in self.rates.items())


def budget_in_words(budget: Mapping[str, Any]) -> str:
    """The fields of a `BudgetConfig` as text, such as `1,000 steps`."""
    return ", ".join(f"{value:,} {kind.replace('_', ' ')}" for kind, value in budget.items() if value is not None)


def without_drawn(order: IntArray, drawn: IntArray) -> IntArray:
    """The order without the first draws of each example, as many as `drawn` holds of it.

    order a b a c b, drawn b a  →  a c b
    """
    by_example = np.argsort(order, kind="stable")
    ids = order[by_example]
    # The number of each draw among the draws of its example.
    numbers = np.arange(len(ids)) - np.searchsorted(ids, ids)
    num_drawn = np.bincount(drawn, minlength=int(order.max(initial=-1)) + 1)
    return order[np.sort(by_example[numbers >= num_drawn[ids]])]


def fill_budget(drawing: Drawing, packing: Packing, store: TokenStore) -> tuple[IntArray, Packed]:
    """The examples of a stage in order, and their packs; for a stage that is extended, only the added ones.

    Raises:
        UserError: the budget needs more epochs of the tasks than the mixture allows.
    """
    budget = drawing.stage.budget
    if drawing.num_units_wanted is not None:
        order = drawing.order(drawing.num_units_wanted)
    elif budget.supervised_tokens:
        order = _draw_tokens(budget.supervised_tokens, "num_supervised_tokens", drawing, store.num_supervised[:])
    elif budget.tokens:
        order = _draw_tokens(budget.tokens, "num_tokens", drawing, store.lengths)
    else:
        assert budget.steps is not None
        return _fill_steps(budget.steps, drawing, packing, store)
    return order, packing.pack(order, store)


def _draw_tokens(needed: int, kind: str, drawing: Drawing, per_example: IntArray) -> IntArray:
    """Draw until there are enough tokens; the last example takes the count to the budget or just past it.

    Args:
        needed: the number of tokens.
        kind: the count of `TaskSupply` that the budget means.
        drawing: what is drawn from.
        per_example: (num_examples,), the tokens of each.
    """
    drawn = there = int(per_example[drawing.drawn.example_ids].sum(dtype=np.int64))
    if drawn >= needed:
        return np.zeros(0, np.int64)
    for order in drawing.growing_orders(needed / drawing.mean_per_unit(kind)):
        reached = drawn + np.cumsum(per_example[order], dtype=np.int64)
        there = int(reached[-1]) if len(reached) else drawn
        if there >= needed:
            return order[: int(np.searchsorted(reached, needed)) + 1]
    raise _too_few(drawing, needed, there, kind.removeprefix("num_").replace("_", " "))


def _fill_steps(num_steps: int, drawing: Drawing, packing: Packing, store: TokenStore) -> tuple[IntArray, Packed]:
    """Draw until there are enough packs."""
    needed, there = max(0, num_steps - drawing.drawn.num_steps) * packing.packs_per_step, 0
    num_tokens = num_steps * packing.packs_per_step * packing.pack_len_tokens
    for order in drawing.growing_orders(num_tokens / drawing.mean_per_unit("num_tokens")):
        positions, starts = packing.pack(order, store)
        there = len(starts) - 1
        if there >= needed:
            starts = starts[: needed + 1]
            # Only the packs in use are the plan; the order is cut to their examples, so the table is right.
            used = order[positions[: starts[-1]]]
            return used, Packed(np.arange(len(used)), starts)
    raise _too_few(drawing, needed, there, "packs")


def _too_few(drawing: Drawing, needed: int, there: int, unit: str) -> UserError:
    stage = drawing.stage
    return UserError(
        f"stage {stage.name}: the budget needs {needed} {unit}, but with at most {stage.mixture.max_epochs_per_task} "
        f"epochs of each task there are {there}. Allow more epochs, or a smaller budget."
    )
