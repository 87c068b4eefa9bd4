"""How much there is of everything: records, tokens, questions, repetitions."""

from collections.abc import Mapping
from typing import Any, NamedTuple


class Scale(NamedTuple):
    """The size of all experiments."""

    base_tokens: int
    """What the base model is pretrained on."""
    num_tokens: int
    """Of each arm, all stages together."""
    seeds: tuple[int, ...]
    """Repetitions of each arm; an experiment about clusters has one for each cluster instead."""
    folds: int
    """How many clusters are held out, one after the other."""
    zoos: Mapping[str, Mapping[str, Any]]
    """Folder → how many records a task has, as `make_zoo` takes it."""
    num_test: int
    """Test records of each task, in known wordings and in unseen ones."""
    num_trained_asked: int
    """How many prompts of each trained task are asked: of both kinds of wordings."""
    num_unseen_asked: int
    """The same of each task of a cluster that is held out."""


FULL = Scale(
    base_tokens=6_000_000,
    num_tokens=300_000,
    seeds=(1, 2, 3),
    folds=12,
    zoos={"natural": {"largest": 3000, "ratio": 100}, "equal": {"largest": 400, "ratio": 1}},
    num_test=50,
    num_trained_asked=8,
    num_unseen_asked=20,
)
SMALL = Scale(
    base_tokens=3_000,
    num_tokens=6_000,
    seeds=(1,),
    folds=1,
    zoos={"natural": {"largest": 40, "ratio": 4}, "equal": {"largest": 20, "ratio": 1}},
    num_test=4,
    num_trained_asked=1,
    num_unseen_asked=3,
)
"""To see that all runs: nothing is learned."""
