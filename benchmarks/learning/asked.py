"""What the models of an arm are asked: the section `evaluate` of its config.

Answers are compared as they are written; where a task has options, the model chooses. The trained tasks are asked in
the wordings of their training and in unseen ones, from two files of records.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.learning.scale import Scale
from benchmarks.learning.zoo.tasks import TASKS

SHOTS = (0, 3)
_MOST_NEW_TOKENS = 24
_FEWER = 2
"""Of the tasks that an experiment about clusters is trained on, a part of the prompts shows that they are learned."""


def ask_all_tasks(trained: Sequence[str], unseen: Sequence[str], scale: Scale, shots: Sequence[int] = SHOTS) -> Any:
    """Ask trained tasks and those of the held-out cluster, zero-shot and few-shot."""
    numbers = dict.fromkeys(trained, scale.num_trained_asked) | dict.fromkeys(unseen, scale.num_unseen_asked)
    return _section(numbers, dict.fromkeys(TASKS, tuple(shots)), scale)


def ask_unseen_tasks(trained: Sequence[str], unseen: Sequence[str], scale: Scale) -> Any:
    """Ask the tasks of the held-out cluster zero-shot and few-shot, and trained ones a little."""
    few = max(1, scale.num_trained_asked // _FEWER)
    numbers = dict.fromkeys(trained, few) | dict.fromkeys(unseen, scale.num_unseen_asked)
    return _section(numbers, {task: SHOTS if task in unseen else (0,) for task in TASKS}, scale)


def ask_tasks(numbers: Mapping[str, int], shots: Mapping[str, Sequence[int]], most: int) -> dict[str, Any]:
    """Ask each task of `shots` with so many shown examples, and `numbers` of its prompts, which are at most `most`."""
    tasks = {}
    for name in shots:
        tasks[name] = {"max_answers": numbers.get(name, 0), "shots": list(shots[name])}
        if not TASKS[name].options:
            tasks[name]["score"] = {"name": "exact_match", "normalize": False}
    return {
        "max_examples_per_task": most,
        "answers_per_task": most,
        "max_new_tokens": _MOST_NEW_TOKENS,
        "tasks": tasks,
    }


def _section(numbers: Mapping[str, int], shots: Mapping[str, Sequence[int]], scale: Scale) -> dict[str, Any]:
    return ask_tasks(numbers, shots, max(scale.num_trained_asked, scale.num_unseen_asked))
