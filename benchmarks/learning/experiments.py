"""What each experiment compares: groups of questions, and pairs of models that differ in one thing.

A model is named by its arm. `base` is the model that all arms start from, `ARM after STAGE` that of an earlier stage,
`ARM asked without` the tuned model with other settings of what it is asked.
"""

from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import NamedTuple

from benchmarks.learning.arms import EPOCHS, FIRST_ANSWERS, NUM_CLUSTERS, SHARES_OF_REPLAY, SPECIAL, Arm
from benchmarks.learning.data import rare_and_frequent
from benchmarks.learning.real import REAL
from benchmarks.learning.scale import Scale
from benchmarks.learning.zoo.tasks import TASKS

BASE = "base"
AFTER = " after "
WITHOUT = " asked without"
_KNOWN_WORDINGS = ("test", "test_ids")

IsIn = Callable[[Arm, str, str], bool]
"""Whether a question to an arm is in a group, by its task and its source."""


class Group(NamedTuple):
    """Questions that are averaged."""

    name: str
    shots: int

    def __str__(self) -> str:
        """For tables and plots."""
        return f"{self.name}, {self.shots} shots" if self.shots else self.name


class Experiment(NamedTuple):
    """What is shown of it."""

    title: str
    models: tuple[str, ...]
    groups: tuple[Group, ...]
    pairs: tuple[tuple[str, str], ...]
    """The second is compared with the first."""
    base_of: str
    """The arm whose first answers are those of `base`."""


def members(scale: Scale) -> Mapping[str, IsIn]:
    """The name of a group → what is in it."""
    rare, frequent = rare_and_frequent(scale)

    def is_trained(arm: Arm, task: str) -> bool:
        return TASKS[task].cluster in arm.trained

    def is_known(arm: Arm, task: str, source: str) -> bool:
        return is_trained(arm, task) and source in _KNOWN_WORDINGS

    return {
        "trained tasks": is_known,
        "unseen wordings": lambda arm, task, source: is_trained(arm, task) and source == "unseen_wordings",
        "unseen tasks": lambda arm, task, source: TASKS[task].cluster in arm.unseen,
        "rare tasks": lambda arm, task, source: task in rare and is_known(arm, task, source),
        "frequent tasks": lambda arm, task, source: task in frequent and is_known(arm, task, source),
        "special tasks": lambda arm, task, source: TASKS[task].cluster == SPECIAL and is_known(arm, task, source),
        "broad tasks": lambda arm, task, source: TASKS[task].cluster != SPECIAL and is_known(arm, task, source),
    }


def _groups(*names: str) -> tuple[Group, ...]:
    """Zero-shot, or with the number behind an @."""
    return tuple(Group(name.partition("@")[0], int(name.partition("@")[2] or 0)) for name in names)


_OF_CLUSTERS = tuple(f"{number}-clusters" for number in NUM_CLUSTERS)
_OF_REPLAY = tuple(f"replay-{share:.1f}" for share in SHARES_OF_REPLAY)
_OF_EPOCHS = tuple(f"epochs-{number}" for number in EPOCHS)
_TAGS = ("tag", "tag-dropout-0.5")
_EVERYWHERE = ("trained tasks", "unseen wordings", "unseen tasks", "unseen tasks@3")

EXPERIMENTS: Mapping[str, Experiment] = {
    "clusters": Experiment(
        "Clusters of tasks",
        (BASE, *_OF_CLUSTERS),
        _groups("unseen tasks", "unseen tasks@3", "trained tasks", "unseen wordings"),
        ((BASE, _OF_CLUSTERS[-1]), (_OF_CLUSTERS[0], _OF_CLUSTERS[-1]), *pairwise(_OF_CLUSTERS)),
        FIRST_ANSWERS["clusters"],
    ),
    "balance": Experiment(
        "Balance",
        (BASE, "natural", "capped", "temperature", "equal"),
        _groups("rare tasks", "frequent tasks", *_EVERYWHERE),
        tuple(("natural", name) for name in ("capped", "temperature", "equal")),
        FIRST_ANSWERS["balance"],
    ),
    "stages": Experiment(
        "Stages and replay",
        (BASE, "one-stage", *(name for arm in _OF_REPLAY for name in (f"{arm}{AFTER}broad", arm))),
        _groups("special tasks", "broad tasks", "unseen wordings"),
        (
            *((f"{name}{AFTER}broad", name) for name in _OF_REPLAY),
            *((_OF_REPLAY[0], name) for name in _OF_REPLAY[1:]),
            *(("one-stage", name) for name in _OF_REPLAY),
        ),
        FIRST_ANSWERS["stages"],
    ),
    "words": Experiment(
        "Loss, tags, examples and words",
        (BASE, "plain", "loss-on-everything", *(name for arm in _TAGS for name in (arm, f"{arm}{WITHOUT}")),
         "shown-examples", "task-id"),
        _groups("trained tasks", "trained tasks@3", *_EVERYWHERE[1:]),
        (
            *(("plain", name) for name in ("loss-on-everything", *_TAGS, "shown-examples", "task-id")),
            *((name, f"{name}{WITHOUT}") for name in _TAGS),
            tuple(f"{name}{WITHOUT}" for name in _TAGS),
        ),
        FIRST_ANSWERS["words"],
    ),
    "packing": Experiment(
        "Packing, and epochs over rare tasks",
        (BASE, "packed", "one-example-a-row", *_OF_EPOCHS),
        _groups("rare tasks", "frequent tasks", *_EVERYWHERE),
        (("packed", "one-example-a-row"), *pairwise(_OF_EPOCHS)),
        FIRST_ANSWERS["packing"],
    ),
    REAL: Experiment(
        "Public data",
        (BASE, "natural", "equal"),
        _groups("unseen tasks", "unseen tasks@3", "rare tasks", "frequent tasks"),
        ((BASE, "natural"), (BASE, "equal"), ("natural", "equal")),
        FIRST_ANSWERS[REAL],
    ),
}  # fmt: skip
