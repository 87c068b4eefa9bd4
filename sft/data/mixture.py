"""How much of each task a stage trains on, and in which order: pure functions over counts and index arrays.

    sizes of the tasks ──rates──▶ shares ──allotment──▶ units of each task ──draw──▶ order of example ids

A unit is a supervised token or an example. Invariants: the shares hold in every stretch of the order, not only
over the whole; no example of a task is drawn again before all others of it were.

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
    """What there is of one task to train on; `units` are what the mixture counts in."""

    example_ids: IntArray
    units: int
    num_tokens: int
    num_supervised_tokens: int


@dataclass(frozen=True, slots=True)
class MixtureRow:
    """One task in the table of a stage's mixture, before and after."""

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
    return {task: rate / total for task, rate in raw.items()}


def capped_sizes(mixture: MixtureConfig, sizes: Mapping[str, int]) -> dict[str, int]:
    """The sizes that count for the rates: none above the cap."""
    return {task: min(size, mixture.cap) if mixture.cap else size for task, size in sizes.items()}


def add_replay(own: Rates, earlier: Sequence[tuple[float, Rates]]) -> Rates:
    """The stage's own rates with shares of earlier stages' rates mixed in."""
    left = 1.0 - sum(share for share, _ in earlier)
    combined = {task: left * rate for task, rate in own.items()}
    for share, rates in earlier:
        for task, rate in rates.items():
            combined[task] = combined.get(task, 0.0) + share * rate
    return combined


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

    Draw k of a task's n lies at (k + offset) / n of the way through the stage. So in a stretch of the order, a task
    with share s among T tasks has its share to within 1 + s * (T - 2) examples: one of its own rounding, and s of
    each other task's. A task's examples come in one shuffled order, again and again: two draws of the same example
    have all others of the task between them.
    """
    ids, positions = [], []
    for task in sorted(allotted):
        supply = supplies[task]
        num_draws = max(1, round(allotted[task] * len(supply.example_ids) / supply.units))
        rng = np.random.default_rng(derive_seed(seed, task))
        shuffled = rng.permutation(supply.example_ids)
        ids.append(np.resize(shuffled, num_draws))
        positions.append((np.arange(num_draws) + rng.random()) / num_draws)
    return np.concatenate(ids)[np.argsort(np.concatenate(positions), kind="stable")]
