"""How much of each task a stage trains on, and in which order: pure functions of counts and index arrays.

    sizes of the tasks ──rates──▶ shares ──allotment──▶ units of each task ──draw──▶ order of example ids

A unit is a supervised token or an example. Invariants: the shares hold in every stretch of the order, not only over
the whole, and they hold in units, however long the examples are; no example of a task is drawn again before all
others of the task were drawn.

Sources: examples-proportional mixing with a rate cap and temperature: Raffel et al. 2020 (T5), section 3.5.2;
Wei et al. 2022 (FLAN), section 2.4.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from sft.config import MixtureConfig
from sft.schema import IntArray
from sft.seeds import derive_seed

Rates = dict[str, float]


class TaskSupply(NamedTuple):
    """The supply of one task; the mixture counts in units."""

    example_ids: IntArray  # (num_examples,)
    example_units: IntArray  # (num_examples,)
    units: int
    num_tokens: int
    num_supervised_tokens: int


@dataclass(frozen=True, slots=True)
class MixtureRow:
    """One task in the table of a stage's mixture, before and after.

    `epochs` is the number of draws divided by the number of examples; `coverage` is the share of the examples that is
    trained at all; `num_tokens_repeated` are the supervised tokens of all draws of an example except its first.
    """

    task: str
    num_examples_before: int
    num_supervised_tokens_before: int
    share_before: float
    num_examples: int
    num_supervised_tokens: int
    share_target: float
    share: float
    epochs: float
    coverage: float
    num_tokens_repeated: int


def mixing_rates(mixture: MixtureConfig, sizes: Mapping[str, int]) -> Rates:
    """Each task's share of the stage, adding up to 1, without replay.

    Args:
        mixture: the rule.
        sizes: units of each task of the stage; with `weights`, at least those of the weighted tasks.
    """
    if mixture.rates == "weights":
        raw = {task: float(weight) for task, weight in mixture.weights.items()}
    else:
        capped = capped_sizes(mixture, sizes)
        exponent = {"natural": 1.0, "equal": 0.0, "temperature": 1.0 / (mixture.temperature or 1.0)}[mixture.rates]
        raw = {task: size**exponent for task, size in capped.items()}
    total = sum(raw.values())
    return raise_to_least({task: rate / total for task, rate in raw.items()}, mixture.min_share or 0.0)


def raise_to_least(rates: Rates, least: float) -> Rates:
    """The rates with none below `least`; the other rates give the difference, each the same part of its own rate.

    `least` times the number of tasks is at most 1.
    """
    raised: Rates = {}
    open_rates = dict(rates)
    while open_rates:
        scale = (1.0 - least * len(raised)) / sum(open_rates.values())
        below = [task for task, rate in open_rates.items() if rate * scale < least]
        if not below:
            break
        for task in below:
            raised[task] = least
            del open_rates[task]
    return {task: raised[task] if task in raised else rate * scale for task, rate in rates.items()}


def capped_sizes(mixture: MixtureConfig, sizes: Mapping[str, int]) -> dict[str, int]:
    """The sizes that determine the rates: none above the cap."""
    return {task: min(size, mixture.cap) if mixture.cap else size for task, size in sizes.items()}


def add_replay(own: Rates, earlier: Sequence[tuple[float, Rates]]) -> Rates:
    """The stage's own rates with shares of earlier stages' rates mixed in."""
    left = 1.0 - sum(share for share, _ in earlier)
    combined = {task: left * rate for task, rate in own.items()}
    for share, rates in earlier:
        for task, rate in rates.items():
            combined[task] = combined.get(task, 0.0) + share * rate
    return combined


def convert_rates(rates: Rates, units_per_unit: Mapping[str, float]) -> Rates:
    """The same mixture in another unit; one old unit of each task is `units_per_unit` new ones."""
    raw = {task: rate * units_per_unit[task] for task, rate in rates.items()}
    total = sum(raw.values())
    return {task: rate / total for task, rate in raw.items()}


def allot(rates: Rates, total: float, limits: Mapping[str, float]) -> dict[str, float]:
    """Units for each task: `total` split by the rates, none above its limit; the surplus goes to the others.

    Where every limit is reached, the sum stays below `total`.
    """
    allotted: dict[str, float] = {}
    open_rates = dict(rates)
    while open_rates:
        left = total - sum(allotted.values())
        scale = left / sum(open_rates.values())
        full = [task for task, rate in open_rates.items() if rate * scale > limits[task]]
        if not full:
            return allotted | {task: rate * scale for task, rate in open_rates.items()}
        for task in full:
            allotted[task] = limits[task]
            del open_rates[task]
    return allotted


def draw(supplies: Mapping[str, TaskSupply], allotted: Mapping[str, float], seed: int) -> IntArray:
    """The stage's examples in order: (num_draws,) example ids, with repeats where a task is over-sampled.

    A task is drawn until its units come as close to its allotment as whole examples allow. All draws share one clock:
    when a part x of the stage has passed, a task has had the part x of its own units, to within one example. So in a
    stretch of the order that holds W units, a task with share s has s * W, to within (1 - s) times the units of its
    largest example plus s times those of the largest example of each other task.

    A task's examples come in one shuffled order, again and again: between two draws of the same example come all
    others of the task.
    """
    ids, positions = [], []
    for task in sorted(allotted):
        supply = supplies[task]
        rng = np.random.default_rng(derive_seed(seed, task))
        shuffled = rng.permutation(len(supply.example_ids))
        num_draws = max(1, _num_draws(supply.example_units[shuffled], supply.units, allotted[task]))
        ids.append(np.resize(supply.example_ids[shuffled], num_draws))
        units = np.resize(supply.example_units[shuffled], num_draws)
        passed = np.cumsum(units, dtype=np.int64)
        # A draw comes when a part of its own units has passed; this part is the same for all draws of the task.
        positions.append((passed - rng.random() * units) / passed[-1])
    return np.concatenate(ids)[np.argsort(np.concatenate(positions), kind="stable")]


def _num_draws(units: IntArray, total: int, allotted: float) -> int:
    """The number of draws of these examples, again and again, that comes nearest to the allotted units."""
    passes, rest = divmod(allotted, total)
    ends = np.cumsum(units, dtype=np.int64)
    return int(passes) * len(units) + int(np.searchsorted(ends - units / 2, rest))
