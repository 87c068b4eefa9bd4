"""Sums and differences of small numbers."""

import numpy as np

from benchmarks.learning.zoo.task import Case, task
from benchmarks.learning.zoo.words import line

_BELOW = 10
"""So that there are few sums enough to be known by heart."""


def _two(rng: np.random.Generator) -> tuple[int, int]:
    return int(rng.integers(_BELOW)), int(rng.integers(_BELOW))


@task(
    phrases=("{a} plus {b}", "the sum of {a} and {b}"),
    unseen_phrases=("the number that is {a} plus {b}",),
    sentences=("What is {a} plus {b}?", "Add {a} and {b}.", "What is the sum of {a} and {b}?"),
    unseen_sentences=("How much is {a} plus {b}?",),
    num_cases=100,
)
def add(rng: np.random.Generator) -> Case:
    a, b = _two(rng)
    return Case("", str(a + b), {"a": a, "b": b})


@task(
    phrases=("{a} minus {b}", "the difference of {a} and {b}"),
    unseen_phrases=("the number that is {a} minus {b}",),
    sentences=("What is {a} minus {b}?", "Take {b} from {a}.", "What is the difference of {a} and {b}?"),
    unseen_sentences=("How much is {a} minus {b}?",),
    num_cases=55,
)
def subtract(rng: np.random.Generator) -> Case:
    b, a = sorted(_two(rng))
    return Case("", str(a - b), {"a": a, "b": b})


@task(
    phrases=("the sum of the numbers", "the sum of the list"),
    unseen_phrases=("the sum of all numbers in the list",),
    sentences=("Add the numbers.", "What is the sum of the numbers?", "How much are the numbers in all?"),
    unseen_sentences=("What is the sum of the list?",),
)
def sum_numbers(rng: np.random.Generator) -> Case:
    numbers = rng.integers(10, size=int(rng.integers(2, 4))).tolist()
    return Case(line(numbers), str(sum(numbers)))


@task(
    phrases=("{a} times two", "two times {a}"),
    unseen_phrases=("the number that is two times {a}",),
    sentences=("What is two times {a}?", "Double {a}.", "What is double {a}?"),
    unseen_sentences=("How much is two times {a}?",),
    num_cases=15,
)
def double(rng: np.random.Generator) -> Case:
    a = int(rng.integers(15))
    return Case("", str(2 * a), {"a": a})


@task(
    phrases=("the sum of the first and the last number", "the first number plus the last number"),
    unseen_phrases=("the last number plus the first number",),
    sentences=("Add the first and the last number.", "What is the first plus the last number?"),
    unseen_sentences=("What is the sum of the first and the last number?",),
)
def add_first_and_last(rng: np.random.Generator) -> Case:
    numbers = rng.integers(_BELOW, size=int(rng.integers(3, 5))).tolist()
    return Case(line(numbers), str(numbers[0] + numbers[-1]))


@task(
    phrases=("the number after {a}", "the number that comes one after {a}"),
    unseen_phrases=("the number that is one larger than {a}",),
    sentences=("Which number comes after {a}?", "What is {a} plus one?", "Add one to {a}."),
    unseen_sentences=("Which number is one after {a}?",),
    num_cases=29,
)
def add_one(rng: np.random.Generator) -> Case:
    a = int(rng.integers(29))
    return Case("", str(a + 1), {"a": a})


TASKS = (add, subtract, sum_numbers, double, add_first_and_last, add_one)
