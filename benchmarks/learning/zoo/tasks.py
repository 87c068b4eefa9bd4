"""All tasks, by cluster, and how many records each has: few have many, and many have few."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from benchmarks.learning.zoo import (
    arithmetic,
    classification,
    comparison,
    counting,
    dates,
    json_forms,
    logic,
    lookup,
    sequences,
    sorting,
    strings,
    translation,
)
from benchmarks.learning.zoo.task import Task
from sft.seeds import derive_seed

_MODULES = {
    "strings": strings,
    "counting": counting,
    "sorting": sorting,
    "arithmetic": arithmetic,
    "json": json_forms,
    "dates": dates,
    "lookup": lookup,
    "translation": translation,
    "logic": logic,
    "classification": classification,
    "comparison": comparison,
    "sequences": sequences,
}
CLUSTERS: Mapping[str, tuple[Task, ...]] = {
    name: tuple(replace(task, cluster=name) for task in module.TASKS) for name, module in _MODULES.items()
}
TASKS: Mapping[str, Task] = {task.name: task for tasks in CLUSTERS.values() for task in tasks}


def sizes(largest: int, ratio: float) -> dict[str, int]:
    """The number of records of each task: a power law, from `largest` down to `largest / ratio`.

    Chance by name says which task is how large, whatever its cluster and its difficulty. A task of few cases gets the
    first of the sizes that it can fill, or the largest that it can where all sizes are equal.
    """
    exponent = np.log(ratio) / np.log(len(TASKS))
    waiting = sorted(TASKS, key=lambda name: derive_seed(0, "zoo size", name))
    chosen: dict[str, int] = {}
    for rank in range(1, len(TASKS) + 1):
        size = max(1, round(largest * rank**-exponent))
        name = next((name for name in waiting if TASKS[name].most_records >= size), waiting[0])
        chosen[name] = int(min(size, TASKS[name].most_records))
        waiting.remove(name)
    return chosen
