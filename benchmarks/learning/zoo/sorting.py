"""Lists in order."""

import numpy as np

from benchmarks.learning.zoo.task import Case, task
from benchmarks.learning.zoo.words import LETTERS, line, some, some_numbers, some_words


@task(
    phrases=("the numbers from small to large", "the numbers sorted from small to large"),
    unseen_phrases=("the list of numbers from small to large",),
    sentences=("Sort the numbers from small to large.", "Sort the numbers.", "Sort the numbers, the smallest first."),
    unseen_sentences=("Sort these numbers from small to large.",),
)
def sort_numbers(rng: np.random.Generator) -> Case:
    numbers = some_numbers(rng, 2, 4)
    return Case(line(numbers), line(sorted(numbers)))


@task(
    phrases=("the numbers from large to small", "the numbers sorted from large to small"),
    unseen_phrases=("the list of numbers from large to small",),
    sentences=(
        "Sort the numbers from large to small.",
        "Sort the numbers in reverse.",
        "Sort the numbers, the largest first.",
    ),
    unseen_sentences=("Sort these numbers from large to small.",),
)
def sort_numbers_reverse(rng: np.random.Generator) -> Case:
    numbers = some_numbers(rng, 2, 4)
    return Case(line(numbers), line(sorted(numbers, reverse=True)))


@task(
    phrases=("the words in alphabet order", "the words sorted from a to z"),
    unseen_phrases=("the list of words in alphabet order",),
    sentences=("Sort the words.", "Sort the words from a to z.", "Sort the words in alphabet order."),
    unseen_sentences=("Sort these words from a to z.",),
)
def sort_words(rng: np.random.Generator) -> Case:
    words = some_words(rng, 2, 4)
    return Case(line(words), line(sorted(words)))


@task(
    phrases=("the words in reverse alphabet order", "the words sorted from z to a"),
    unseen_phrases=("the list of words in reverse alphabet order",),
    sentences=(
        "Sort the words in reverse.",
        "Sort the words from z to a.",
        "Sort the words in reverse alphabet order.",
    ),
    unseen_sentences=("Sort these words from z to a.",),
)
def sort_words_reverse(rng: np.random.Generator) -> Case:
    words = some_words(rng, 2, 4)
    return Case(line(words), line(sorted(words, reverse=True)))


@task(
    phrases=("the letters in alphabet order", "the letters sorted from a to z"),
    unseen_phrases=("the list of letters in alphabet order",),
    sentences=("Sort the letters.", "Sort the letters from a to z.", "Sort the letters in alphabet order."),
    unseen_sentences=("Sort these letters from a to z.",),
)
def sort_letters(rng: np.random.Generator) -> Case:
    letters = some(rng, LETTERS, 2, 4)
    return Case(line(letters), line(sorted(letters)))


TASKS = (sort_numbers, sort_numbers_reverse, sort_words, sort_words_reverse, sort_letters)
