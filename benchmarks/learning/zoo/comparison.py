"""Which is more, which is less, which is the same."""

import numpy as np

from benchmarks.learning.zoo.task import Case, task
from benchmarks.learning.zoo.words import line, some_numbers, some_words


@task(
    phrases=("the larger of {a} and {b}", "which is larger, {a} or {b}"),
    unseen_phrases=("the larger one of {a} and {b}",),
    sentences=("Which is larger, {a} or {b}?", "Is {a} or {b} larger?"),
    unseen_sentences=("Which number is larger, {a} or {b}?",),
)
def larger_of_two(rng: np.random.Generator) -> Case:
    a, b = some_numbers(rng, 2, 2)
    return Case("", str(max(a, b)), {"a": a, "b": b})


@task(
    phrases=("the smaller of {a} and {b}", "which is smaller, {a} or {b}"),
    unseen_phrases=("the smaller one of {a} and {b}",),
    sentences=("Which is smaller, {a} or {b}?", "Is {a} or {b} smaller?"),
    unseen_sentences=("Which number is smaller, {a} or {b}?",),
)
def smaller_of_two(rng: np.random.Generator) -> Case:
    a, b = some_numbers(rng, 2, 2)
    return Case("", str(min(a, b)), {"a": a, "b": b})


@task(
    phrases=("the largest number", "the largest number of the list"),
    unseen_phrases=("the number that is larger than all others",),
    sentences=("Which number is largest?", "What is the largest number?"),
    unseen_sentences=("Which of the numbers is largest?",),
)
def largest_number(rng: np.random.Generator) -> Case:
    numbers = some_numbers(rng)
    return Case(line(numbers), str(max(numbers)))


@task(
    phrases=("the smallest number", "the smallest number of the list"),
    unseen_phrases=("the number that is smaller than all others",),
    sentences=("Which number is smallest?", "What is the smallest number?"),
    unseen_sentences=("Which of the numbers is smallest?",),
)
def smallest_number(rng: np.random.Generator) -> Case:
    numbers = some_numbers(rng)
    return Case(line(numbers), str(min(numbers)))


@task(
    phrases=("the word that is first in the alphabet", "which word comes first in the alphabet"),
    unseen_phrases=("the word that comes first from a to z",),
    sentences=("Which word is first in the alphabet?", "Which word comes first from a to z?"),
    unseen_sentences=("Which of the words is first in the alphabet?",),
)
def first_in_alphabet(rng: np.random.Generator) -> Case:
    words = some_words(rng, 2, 3)
    return Case(line(words), min(words))


@task(
    phrases=("if the two lists are the same or different", "same or different for the two lists"),
    unseen_phrases=("same or different",),
    sentences=("Are the two lists the same or different?", "Same or different?"),
    unseen_sentences=("Are these two lists different or the same?",),
    options=("same", "different"),
)
def same_or_different(rng: np.random.Generator) -> Case:
    other, *words = some_words(rng, 2, 4)
    copy, is_same = list(words), bool(rng.integers(2))
    if not is_same:
        copy[int(rng.integers(len(copy)))] = other
    return Case(f"{line(words)} ; {line(copy)}", "same" if is_same else "different")


@task(
    phrases=("which list has more words, first or second", "the list with more words, first or second"),
    unseen_phrases=("first or second for the list with more words",),
    sentences=(
        "Which list has more words, the first or the second?",
        "Are there more words in the first or second list?",
    ),
    unseen_sentences=("First or second: which list has more words?",),
    options=("first", "second"),
)
def more_words(rng: np.random.Generator) -> Case:
    words = some_words(rng, 3, 5)
    places = [place for place in range(1, len(words)) if 2 * place != len(words)]
    place = places[int(rng.integers(len(places)))]
    return Case(f"{line(words[:place])} ; {line(words[place:])}", "first" if 2 * place > len(words) else "second")


TASKS = (
    *(larger_of_two, smaller_of_two, largest_number, smallest_number),
    *(first_in_alphabet, same_or_different, more_words),
)
