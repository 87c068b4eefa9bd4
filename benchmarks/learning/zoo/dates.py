"""Days of the week, and months."""

import numpy as np

from benchmarks.learning.zoo.task import Case, task
from benchmarks.learning.zoo.words import DAYS, MONTHS, NAMES, line, pick, some


def _next(name: str, names: tuple[str, ...], steps: int = 1) -> str:
    return names[(names.index(name) + steps) % len(names)]


@task(
    phrases=("the day after {day}", "the day that comes one after {day}"),
    unseen_phrases=("the day that is next after {day}",),
    sentences=("Which day comes after {day}?", "Today is {day}. Which day comes next?"),
    unseen_sentences=("Which day is one after {day}?",),
    num_cases=7,
)
def day_after(rng: np.random.Generator) -> Case:
    day = pick(rng, DAYS)
    return Case("", _next(day, DAYS), {"day": day})


@task(
    phrases=("the day before {day}", "the day that comes one before {day}"),
    unseen_phrases=("the day that is just before {day}",),
    sentences=("Which day comes before {day}?", "Today is {day}. Which day was before?"),
    unseen_sentences=("Which day is one before {day}?",),
    num_cases=7,
)
def day_before(rng: np.random.Generator) -> Case:
    day = pick(rng, DAYS)
    return Case("", _next(day, DAYS, -1), {"day": day})


@task(
    phrases=("the month after {month}", "the month that comes one after {month}"),
    unseen_phrases=("the month that is next after {month}",),
    sentences=("Which month comes after {month}?", "It is {month}. Which month comes next?"),
    unseen_sentences=("Which month is one after {month}?",),
    num_cases=12,
)
def month_after(rng: np.random.Generator) -> Case:
    month = pick(rng, MONTHS)
    return Case("", _next(month, MONTHS), {"month": month})


@task(
    phrases=("the days in the order of the week", "the days sorted from monday to sunday"),
    unseen_phrases=("the list of days in the order of the week",),
    sentences=("Sort the days.", "Sort the days from monday to sunday."),
    unseen_sentences=("Sort these days in the order of the week.",),
)
def sort_days(rng: np.random.Generator) -> Case:
    days = some(rng, DAYS, 2, 4)
    return Case(line(days), line(sorted(days, key=DAYS.index)))


@task(
    phrases=("the day that is first in the week", "which day is first in the week"),
    unseen_phrases=("the day that comes first in the week",),
    sentences=("Which day is first in the week?", "Which day comes before the others in the week?"),
    unseen_sentences=("Which of these days is first in the week?",),
    num_cases=252,
)
def first_day(rng: np.random.Generator) -> Case:
    days = some(rng, DAYS, 2, 3)
    return Case(line(days), min(days, key=DAYS.index))


@task(
    phrases=("on which day {name} comes", "the day on which {name} comes"),
    unseen_phrases=("which day {name} comes on",),
    sentences=("On which day does {name} come?", "When does {name} come?"),
    unseen_sentences=("Which day does {name} come on?",),
)
def day_of_name(rng: np.random.Generator) -> Case:
    names = some(rng, NAMES, 2, 3)
    days = dict(zip(names, some(rng, DAYS, len(names), len(names)), strict=True))
    name = pick(rng, names)
    return Case(" ".join(f"{who} comes on {day}." for who, day in days.items()), days[name], {"name": name})


TASKS = (day_after, day_before, month_after, sort_days, first_day, day_of_name)
