"""How many records are to be made of each task: of the rare ones, in proportion to what they lack.

supervised tokens   qa 900 · code 60 · sort 40   the equal share is 333
num: 100                      code 48 · sort 52
"""

from collections.abc import Collection, Mapping
from heapq import heapify, heapreplace

import numpy as np

from sft.config import HoldoutConfig
from sft.data.planning.holdout import check_tasks
from sft.data.planning.trainable import trainable_examples
from sft.data.token_store import TokenStore
from sft.errors import UserError


def supervised_by_task(store: TokenStore, holdout: HoldoutConfig) -> dict[str, int]:
    """Task → the supervised tokens of its examples that may be trained on; a task that is held out has none.

    Raises:
        UserError: a held-out task of the config is not in the data.
    """
    trained = trainable_examples(store, holdout)
    weights = np.where(trained, store.num_supervised, 0)
    counts = np.bincount(store.task_ids, weights=weights, minlength=len(store.tasks))
    return {task: int(count) for task, count in zip(store.tasks, counts, strict=True)}


def wanted_counts(
    tasks: str | tuple[str, ...], num: int, supervised: Mapping[str, int], field: str, without: Collection[str] = ()
) -> dict[str, int]:
    """Task → the number of its records, in the order of `supervised`; they add up to `num`.

    Args:
        tasks: `rare`, `all`, or names.
        num: of all tasks together.
        supervised: supervised tokens by task.
        field: of the config, for messages.
        without: tasks of which nothing can be shown: `rare` and `all` do not mean them, unless there are no others.

    Raises:
        UserError: there is no such task, it is held out, or no task is rare.
    """
    there = {task: have for task, have in supervised.items() if have}
    if tasks == "rare":
        share = sum(there.values()) / max(len(there), 1)
        lacking = {task: share - have for task, have in there.items() if have < share}
        if not lacking:
            raise UserError(
                f"{field}: rare: no task has fewer supervised tokens than an equal share. Name the tasks to make more "
                f"of, or give `all`: {', '.join(there) or 'none'}."
            )
        return _divided(num, _but(lacking, without))
    named = [*there] if tasks == "all" else check_tasks(tasks, [*supervised], field)
    if held_out := [task for task in named if task not in there]:
        raise UserError(f"{field}: {', '.join(held_out)}: held out, so nothing of it is shown to a teacher.")
    equal = {task: 1.0 for task in there if task in named}
    return _divided(num, _but(equal, without) if tasks == "all" else equal)


def _but(weights: Mapping[str, float], without: Collection[str]) -> Mapping[str, float]:
    return {task: weight for task, weight in weights.items() if task not in without} or weights


def _divided(num: int, weights: Mapping[str, float]) -> dict[str, int]:
    """`num` in these proportions, by the highest averages (Sainte-Laguë); tasks that get none are left out.

    One record after the other goes to the task that is furthest behind its proportion. So a larger `num` gives more and
    takes nothing, which the largest remainders do not promise.
    """
    counts = dict.fromkeys(weights, 0)
    behind = [(-weight, place, task) for place, (task, weight) in enumerate(weights.items())]
    heapify(behind)
    for _ in range(num if behind else 0):
        _, place, task = behind[0]
        counts[task] += 1
        heapreplace(behind, (-weights[task] / (2 * counts[task] + 1), place, task))
    return {task: count for task, count in counts.items() if count}
