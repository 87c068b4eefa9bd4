"""How much of each task there is to train on, and how much a stage takes: rates from the config and the supplies.

The tasks of a stage are checked here, once: are they in the data, is a task held out whole, can the shares be met.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from sft.config import MixtureConfig, SftConfig
from sft.data.planning.holdout import check_tasks
from sft.data.planning.mixture import Rates, TaskSupply, add_replay, capped_sizes, convert_rates, mixing_rates
from sft.data.token_store import TokenStore
from sft.errors import UserError
from sft.schema import BoolArray, IntArray

Supplies = Mapping[str, TaskSupply]


@dataclass(frozen=True, slots=True)
class Available:
    """The trainable examples of each task that has any, in each unit; and the number of examples of each task."""

    supplies: Mapping[str, Supplies]
    num_examples: Mapping[str, int]

    @classmethod
    def of(cls, store: TokenStore, trainable: BoolArray) -> "Available":
        """Count the examples for which `trainable`, (num_examples,), is True.

        Raises:
            UserError: there are none.
        """
        task_ids, num_supervised, lengths = store.task_ids[:], store.num_supervised[:], store.lengths
        in_tokens, in_examples = {}, {}
        for task, ids in split_by_task(store, np.flatnonzero(trainable)):
            if len(ids):
                each = num_supervised[ids]
                counts = int(lengths[ids].sum()), int(each.sum(dtype=np.int64))
                in_tokens[task] = TaskSupply(ids, each, counts[1], *counts)
                in_examples[task] = TaskSupply(ids, np.broadcast_to(np.int32(1), len(ids)), len(ids), *counts)
        if not in_tokens:
            raise UserError("data.holdout: every example of the data is held out. Hold out less.")
        num_examples = np.bincount(task_ids, minlength=len(store.tasks)).tolist()
        supplies = {"supervised_tokens": in_tokens, "examples": in_examples}
        return cls(supplies, dict(zip(store.tasks, num_examples, strict=True)))


def split_by_task(store: TokenStore, example_ids: IntArray) -> Iterator[tuple[str, IntArray]]:
    """The examples of each task of the store, in their order."""
    task_ids = store.task_ids[example_ids]
    counts = np.bincount(task_ids, minlength=len(store.tasks))
    by_task = example_ids[np.argsort(task_ids, kind="stable")]
    return zip(store.tasks, np.split(by_task, np.cumsum(counts)[:-1]), strict=True)


def stage_rates(config: SftConfig, index: int, available: Available) -> Rates:
    """Each task's share of the stage in the stage's unit, with replay.

    An earlier stage is replayed with the rates that it drew with, in its own unit, whatever the unit of this stage.

    Raises:
        UserError: a task of the config cannot be trained on, or `min_share` cannot be met.
    """
    mixture = config.stages[index].mixture
    supplies = available.supplies[mixture.unit]
    earlier = []
    for name, other in config.replayable(index).items():
        share = mixture.replay.get(name)
        if share:
            units_there = available.supplies[other.unit]
            own = _own_rates(other, _path_of(config, name), available)
            earlier.append((share, convert_rates(own, {t: supplies[t].units / units_there[t].units for t in own})))
    return add_replay(_own_rates(mixture, f"stages.{index}.mixture", available), earlier)


def _path_of(config: SftConfig, name: str) -> str:
    """The path in the config of the mixture of an earlier stage."""
    own = [i for i, stage in enumerate(config.stages) if stage.name == name]
    return f"stages.{own[0]}.mixture" if own else f"from.mixtures.{name}"


def own_units(config: SftConfig, index: int, available: Available) -> int:
    """The sum of the stage's own tasks in its unit: one epoch of the stage."""
    mixture = config.stages[index].mixture
    return sum(capped_sizes(mixture, _own_sizes(mixture, f"stages.{index}.mixture", available)).values())


def _own_rates(mixture: MixtureConfig, path: str, available: Available) -> Rates:
    """Rates without replay; `path` is the mixture's path in the config."""
    sizes = _own_sizes(mixture, path, available)
    least = mixture.min_share or 0.0
    if least * len(sizes) > 1.0 + 1e-9:
        raise UserError(
            f"{path}.min_share: {least:g} for each of {len(sizes)} tasks is {least * len(sizes):g} of "
            f"the stage, more than there is. At most {1 / len(sizes):.4f} is possible: lower it, or name fewer tasks."
        )
    return mixing_rates(mixture, sizes)


def _own_sizes(mixture: MixtureConfig, path: str, available: Available) -> dict[str, int]:
    """Units of each of the mixture's own tasks."""
    supplies = available.supplies[mixture.unit]
    given = mixture.named_tasks
    path = f"{path}.{'weights' if mixture.rates == 'weights' else 'tasks'}"
    names = check_tasks(sorted(supplies) if given is None else given, list(available.num_examples), path)
    for name in names:
        if name not in supplies:
            raise UserError(
                f"{path}: nothing of task {name!r} may be trained on: all of its {available.num_examples[name]:,} "
                "examples are held out. Remove it here, or hold out less (data.holdout)."
            )
    return {name: supplies[name].units for name in names}
