"""What a short text says."""

import numpy as np

from benchmarks.learning.zoo.task import Case, task
from benchmarks.learning.zoo.words import KINDS, NAMES, line, pick, some, some_numbers

_THINGS = KINDS["tool"] + KINDS["clothes"]


def _owners(rng: np.random.Generator) -> dict[str, str]:
    names = some(rng, NAMES, 2, 3)
    return dict(zip(names, some(rng, _THINGS, len(names), len(names)), strict=True))


def _told(owners: dict[str, str]) -> str:
    return " ".join(f"{name} has the {thing}." for name, thing in owners.items())


@task(
    phrases=("who has the {thing}", "the name of the one who has the {thing}"),
    unseen_phrases=("the one who has the {thing}",),
    sentences=("Who has the {thing}?", "Which name has the {thing}?"),
    unseen_sentences=("Who is the one with the {thing}?",),
)
def who_has(rng: np.random.Generator) -> Case:
    owners = _owners(rng)
    name = pick(rng, list(owners))
    return Case(_told(owners), name, {"thing": owners[name]})


@task(
    phrases=("what {name} has", "the thing that {name} has"),
    unseen_phrases=("which thing {name} has",),
    sentences=("What does {name} have?", "Which thing does {name} have?"),
    unseen_sentences=("Which is the thing that {name} has?",),
)
def what_has(rng: np.random.Generator) -> Case:
    owners = _owners(rng)
    name = pick(rng, list(owners))
    return Case(_told(owners), owners[name], {"name": name})


@task(
    phrases=("the color of the {thing}", "which color the {thing} has"),
    unseen_phrases=("the color that the {thing} has",),
    sentences=("Which color is the {thing}?", "What is the color of the {thing}?"),
    unseen_sentences=("Which color does the {thing} have?",),
)
def color_of(rng: np.random.Generator) -> Case:
    things = some(rng, _THINGS, 2, 3)
    colors = dict(zip(things, some(rng, KINDS["color"], len(things), len(things)), strict=True))
    thing = pick(rng, things)
    told = " ".join(f"the {thing} is {color}." for thing, color in colors.items())
    return Case(told, colors[thing], {"thing": thing})


def _scores(rng: np.random.Generator) -> dict[str, int]:
    names = some(rng, NAMES, 2, 3)
    return dict(zip(names, some_numbers(rng, len(names), len(names)), strict=True))


def _listed(scores: dict[str, int]) -> str:
    return " , ".join(f"{name} {number}" for name, number in scores.items())


@task(
    phrases=("the number of {name}", "the number that {name} has"),
    unseen_phrases=("which number {name} has",),
    sentences=("Which number does {name} have?", "What is the number of {name}?"),
    unseen_sentences=("Which is the number that {name} has?",),
)
def number_of(rng: np.random.Generator) -> Case:
    scores = _scores(rng)
    name = pick(rng, list(scores))
    return Case(_listed(scores), str(scores[name]), {"name": name})


@task(
    phrases=("who has the largest number", "the name with the largest number"),
    unseen_phrases=("the name of the one with the largest number",),
    sentences=("Who has the largest number?", "Which name has the largest number?"),
    unseen_sentences=("Who is the one with the largest number?",),
)
def who_has_largest(rng: np.random.Generator) -> Case:
    scores = _scores(rng)
    return Case(_listed(scores), max(scores, key=lambda name: scores[name]))


@task(
    phrases=("the names in the text", "all names that the text has"),
    unseen_phrases=("each name in the text",),
    sentences=("Which names are in the text?", "Who is in the text?"),
    unseen_sentences=("Which names does the text have?",),
)
def names_in_text(rng: np.random.Generator) -> Case:
    owners = _owners(rng)
    return Case(_told(owners), line(list(owners)))


TASKS = (who_has, what_has, color_of, number_of, who_has_largest, names_in_text)
