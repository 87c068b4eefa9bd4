"""How many there are."""

import numpy as np

from benchmarks.learning.zoo.task import Case, task
from benchmarks.learning.zoo.words import KIND_OF, KINDS, NOUNS, PLURALS, line, pick, some, some_numbers, some_words


@task(
    phrases=("the number of words", "how many words there are", "how many words the list has"),
    unseen_phrases=("the number of words in the list",),
    sentences=("How many words are there?", "Count the words.", "How many words are in the list?"),
    unseen_sentences=("How many words does the list have?",),
)
def count_words(rng: np.random.Generator) -> Case:
    words = some_words(rng, 1, 6)
    return Case(line(words), str(len(words)))


@task(
    phrases=("the number of letters of the word", "how many letters the word has"),
    unseen_phrases=("how many letters there are in the word",),
    sentences=("How many letters does the word have?", "Count the letters of the word."),
    unseen_sentences=("How many letters are in this word?",),
    num_cases=30,
)
def count_letters(rng: np.random.Generator) -> Case:
    word = pick(rng, NOUNS)
    return Case(word, str(len(word)))


@task(
    phrases=("how many times the word {word} is in the list", "the number of times {word} is in the list"),
    unseen_phrases=("how many times there is {word} in the list",),
    sentences=("How many times is {word} in the list?", "Count how many times {word} is there."),
    unseen_sentences=("How many times is the word {word} there?",),
)
def count_repeats(rng: np.random.Generator) -> Case:
    word, *others = some_words(rng, 3, 3)
    words = [word] * int(rng.integers(1, 5)) + [pick(rng, others) for _ in range(int(rng.integers(1, 4)))]
    return Case(line([words[place] for place in rng.permutation(len(words))]), str(words.count(word)), {"word": word})


@task(
    phrases=("the number of {kind}", "how many {kind} there are", "how many {kind} the list has"),
    unseen_phrases=("the number of {kind} in the list",),
    sentences=("How many {kind} are there?", "Count the {kind}."),
    unseen_sentences=("How many {kind} does the list have?",),
)
def count_kind(rng: np.random.Generator) -> Case:
    kind, other = some(rng, tuple(KINDS), 2, 2)
    words = some(rng, KINDS[kind] + KINDS[other], 2, 4)
    return Case(line(words), str(sum(KIND_OF[word] == kind for word in words)), {"kind": PLURALS[kind]})


@task(
    phrases=("how many numbers are larger than {least}", "the number of numbers larger than {least}"),
    unseen_phrases=("how many numbers in the list are larger than {least}",),
    sentences=("How many numbers are larger than {least}?", "Count the numbers that are larger than {least}."),
    unseen_sentences=("How many of the numbers are larger than {least}?",),
)
def count_larger(rng: np.random.Generator) -> Case:
    numbers = some_numbers(rng)
    least = int(rng.integers(1, 6)) * 5
    return Case(line(numbers), str(sum(number > least for number in numbers)), {"least": least})


TASKS = (count_words, count_letters, count_repeats, count_kind, count_larger)
