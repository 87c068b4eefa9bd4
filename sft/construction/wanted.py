"""How many records are to be made of each task: of the rare ones, in proportion to what they lack.

supervised tokens   qa 900 · code 60 · sort 40    the equal share is 333
num: 100                      code 48 · sort 52

With `tokens_per_task: 100`, of records of 20 tokens:
num: 100                       code 2 · sort 3    no more than they lack
"""

from collections.abc import Collection, Mapping
from heapq import heapify, heapreplace
from typing import NamedTuple, TypeVar

import numpy as np

from sft.config import HoldoutConfig
from sft.data.planning.holdout import check_tasks
from sft.data.planning.trainable import trainable_examples
from sft.data.token_store import TokenStore
from sft.errors import UserError

Number = TypeVar("Number", int, float)


class Supervised(NamedTuple):
    """What of a task may be trained on: nothing, if it is held out."""

    num_tokens: int
    """Those that are learned."""
    num_examples: int

    def num_lacking(self, num_tokens: int) -> int:
        """How many more examples, as long as these are on average, have so many tokens with them."""
        return -(-max(0, num_tokens - self.num_tokens) * self.num_examples // self.num_tokens)


def supervised_by_task(store: TokenStore, holdout: HoldoutConfig) -> dict[str, Supervised]:
    """Task → what of it may be trained on.

    Raises:
        UserError: a held-out task of the config is not in the data.
    """
    trained = trainable_examples(store, holdout)
    weights = np.where(trained, store.num_supervised, 0)
    tokens, examples = (
        np.bincount(store.task_ids, weights=each, minlength=len(store.tasks)).astype(int).tolist()
        for each in (weights, weights > 0)
    )
    return {task: Supervised(*both) for task, *both in zip(store.tasks, tokens, examples, strict=True)}


def wanted_counts(
    tasks: str | tuple[str, ...],
    num: int,
    supervised: Mapping[str, Supervised],
    field: str,
    without: Collection[str] = (),
    tokens_per_task: int | None = None,
) -> dict[str, int]:
    """Task → the number of its records, in the order of `supervised`; they add up to `num`, or to less with a target.

    Args:
        tasks: `rare`, `all`, or names.
        num: of all tasks together.
        supervised: by task.
        field: of the config, for messages.
        without: tasks of which nothing can be shown: `rare` and `all` do not mean them, unless there are no others.
        tokens_per_task: the supervised tokens that `rare` tasks are to have; empty: an equal share, without an end.

    Raises:
        UserError: there is no such task, it is held out, or no task is rare.
    """
    there = {task: of.num_tokens for task, of in supervised.items() if of.num_tokens}
    if tasks == "rare" and tokens_per_task is not None:
        numbers = {task: supervised[task].num_lacking(tokens_per_task) for task in there}
        missing = {task: number for task, number in numbers.items() if number}
        if not missing:
            raise UserError(
                f"{field}: rare: every task has {tokens_per_task:,} supervised tokens or more. Give a larger "
                f"tokens_per_task, or name the tasks to make more of: {', '.join(there) or 'none'}."
            )
        wanted = _but(missing, without)
        # In the end each has just what it lacks: the highest averages of whole numbers that add up to `num`.
        return _divided(min(num, sum(wanted.values())), wanted)
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


def _but(weights: Mapping[str, Number], without: Collection[str]) -> Mapping[str, Number]:
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
