"""The records of the zoo: what training sees, and what tests ask, with the known wordings and with new ones.

Invariants: the same arguments give the same records; no prompt is asked twice, and none of a test is in training.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.learning.zoo.task import Record, Task
from benchmarks.learning.zoo.tasks import TASKS, sizes
from sft.seeds import derive_seed

_TRIES = 50
"""Draws for each record that is wanted, before a task counts as exhausted."""
_LARGEST_TEST_SHARE = 0.2
"""Of a task with few cases: the rest is for training."""


class Zoo(NamedTuple):
    """All records, task after task."""

    train: list[Record]
    test: list[Record]
    """In wordings that training has."""
    unseen_wordings: list[Record]
    """In wordings that training never has."""


def make_zoo(seed: int = 0, largest: int = 3000, ratio: float = 100, num_test: int = 50) -> Zoo:
    """Draw the zoo: as many records a task as `sizes` says, and `num_test` for each test, or fewer of few cases."""
    zoo = Zoo([], [], [])
    for name, size in sizes(largest, ratio).items():
        task = TASKS[name]
        asked = int(min(num_test, max(1, _LARGEST_TEST_SHARE * task.most_records)))
        taken: set[tuple[str, str]] = set()
        zoo.test.extend(draw_records(task, asked, taken, derive_seed(seed, "test", name)))
        zoo.unseen_wordings.extend(draw_records(task, asked, set(), derive_seed(seed, "unseen", name), unseen=True))
        zoo.train.extend(draw_records(task, size, taken, derive_seed(seed, "train", name)))
    return zoo


def draw_records(
    task: Task, size: int, taken: set[tuple[str, str]], seed: int, *, unseen: bool = False
) -> list[Record]:
    """So many records of a task, or fewer of few cases; none with a prompt in `taken`, which gets theirs."""
    rng, records = np.random.default_rng(seed), []
    for _ in range(size * _TRIES):
        if len(records) == size:
            break
        record = task.record(rng, unseen=unseen)
        prompt = (record["instruction"], record["input"])
        if prompt not in taken:
            taken.add(prompt)
            records.append(record)
    return records


def with_shots(record: Record, shown: Sequence[Record]) -> Record:
    """The record as a conversation, whose earlier turns show how others of the same task are answered.

    Only the last answer is trained, so that a record teaches as much with examples as without.
    """
    turns = [turn for other in shown for turn in _turns(other, train=False)]
    return {**record, "messages": [*turns, *_turns(record)]}


def shown_for(record: Record, others: Sequence[Record], num_shots: int, seed: int) -> list[Record]:
    """Draw examples of the record's task: never one with the same input and instruction."""
    prompt = (record["instruction"], record["input"])
    rng = np.random.default_rng(derive_seed(seed, "shots", *prompt))
    drawn = (others[place] for place in rng.permutation(len(others)))
    return list(islice((other for other in drawn if (other["instruction"], other["input"]) != prompt), num_shots))


def by_task(records: Iterable[Record]) -> dict[str, list[Record]]:
    grouped: dict[str, list[Record]] = {}
    for record in records:
        grouped.setdefault(record["task"], []).append(record)
    return grouped


def write_lines(path: Path, records: Iterable[Mapping[str, Any]]) -> Path:
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    return path


def _turns(record: Record, *, train: bool = True) -> list[dict[str, Any]]:
    prompt = "\n\n".join(part for part in (record["instruction"], record["input"]) if part)
    answer: dict[str, Any] = {"role": "assistant", "content": record["output"]}
    return [{"role": "user", "content": prompt}, answer if train else {**answer, "train": False}]
