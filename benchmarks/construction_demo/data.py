"""The records of the demonstration: a small unbalanced set, what the teacher learned, and what models are asked.

    train.jsonl            22 tasks with 150 records each, and 10 with 12: two of each cluster, drawn by chance
    test.jsonl             what trained and unseen tasks are asked, in wordings that training has
    unseen_wordings.jsonl  the same in wordings that it does not have
    teacher.jsonl          400 records of each trained task: what the teacher knows, and the small set does not show

No prompt of a test is in another file.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from benchmarks.learning.zoo.records import draw_records, write_lines
from benchmarks.learning.zoo.task import Record
from benchmarks.learning.zoo.tasks import CLUSTERS, TASKS
from sft.seeds import derive_seed

TRAINED = ("counting", "sorting", "lookup", "comparison", "sequences")
UNSEEN = ("dates",)
NUM_RARE_OF_CLUSTER = 2
_LEAST_CASES = 1000
"""A rare task has more different records than are made of it."""


class Amounts(NamedTuple):
    """How many records of each task there are, and how many are made and asked."""

    frequent: int = 150
    rare: int = 12
    test: int = 40
    teacher: int = 400
    made: int = 1500
    """Drafts of a round, of all its tasks together."""
    read: int = 300
    """Records of a round's sample at most; fewer if it suffices before."""
    asked_rare: int = 24
    asked_frequent: int = 8
    asked_unseen: int = 20
    seeds: tuple[int, ...] = (1, 2, 3)
    """Of the trainings."""


FULL = Amounts()
SMALL = Amounts(
    frequent=8, rare=3, test=4, teacher=6, made=20, read=3, asked_rare=2, asked_frequent=1, asked_unseen=2, seeds=(1,)
)


def trained_tasks() -> list[str]:
    return [task.name for cluster in TRAINED for task in CLUSTERS[cluster]]


def unseen_tasks() -> list[str]:
    return [task.name for cluster in UNSEEN for task in CLUSTERS[cluster]]


def rare_tasks() -> list[str]:
    """Chance by name says which."""
    return sorted(name for cluster in TRAINED for name in _rare_of(cluster))


def _rare_of(cluster: str) -> list[str]:
    names = [task.name for task in CLUSTERS[cluster] if task.most_records >= _LEAST_CASES]
    return sorted(names, key=lambda name: derive_seed(0, "rare in the demonstration", name))[:NUM_RARE_OF_CLUSTER]


def write_data(folder: Path, amounts: Amounts, seed: int = 0) -> None:
    """Write all files, as a whole."""
    files: dict[str, list[Record]] = {"train": [], "test": [], "unseen_wordings": [], "teacher": []}
    for name in (*trained_tasks(), *unseen_tasks()):
        for file, records in _of_task(name, amounts, seed):
            files[file].extend(records)
    folder.mkdir(parents=True)
    for file, records in files.items():
        write_lines(folder / f"{file}.jsonl", records)


def _of_task(name: str, amounts: Amounts, seed: int) -> Iterator[tuple[str, list[Record]]]:
    task, taken = TASKS[name], set[tuple[str, str]]()
    asked = int(min(amounts.test, max(1, task.most_records / 5)))
    yield "test", draw_records(task, asked, taken, derive_seed(seed, "test", name))
    unseen = draw_records(task, asked, taken, derive_seed(seed, "unseen wordings", name), unseen=True)
    yield "unseen_wordings", unseen
    if task.cluster in TRAINED:
        number = amounts.rare if name in rare_tasks() else amounts.frequent
        yield "train", draw_records(task, number, set(taken), derive_seed(seed, "train", name))
        yield "teacher", draw_records(task, amounts.teacher, set(taken), derive_seed(seed, "teacher", name))
