"""Which of a few classes, by a rule."""

import numpy as np

from benchmarks.learning.zoo.task import Case, task
from benchmarks.learning.zoo.words import KIND_OF, KINDS, LETTERS, NAMES, NOUNS, NUMBERS, VOWELS, line, pick, some

_KINDS = tuple(KINDS)
_LARGE = 15


@task(
    phrases=("the kind of the word", "which kind the word is", "the kind of thing that the word is"),
    unseen_phrases=("of which kind the word is",),
    sentences=("Which kind is the word?", "Animal, food, color, tool or clothes?", "What kind of thing is it?"),
    unseen_sentences=("Of which kind is the word?",),
    options=_KINDS,
    num_cases=30,
)
def kind_of_word(rng: np.random.Generator) -> Case:
    word = pick(rng, NOUNS)
    return Case(word, KIND_OF[word])


@task(
    phrases=("the kind that all words have", "the kind of the words"),
    unseen_phrases=("the kind of all the words",),
    sentences=("Which kind are the words?", "Of which kind are all the words?"),
    unseen_sentences=("Which kind do all words have?",),
    options=_KINDS,
)
def kind_of_list(rng: np.random.Generator) -> Case:
    kind = pick(rng, _KINDS)
    return Case(line(some(rng, KINDS[kind], 2, 4)), kind)


@task(
    phrases=("the kind of the last word", "which kind the last word is"),
    unseen_phrases=("of which kind the last word is",),
    sentences=("Which kind is the last word?", "What kind of thing is the last word?"),
    unseen_sentences=("Of which kind is the last word?",),
    options=_KINDS,
)
def kind_of_last(rng: np.random.Generator) -> Case:
    words = some(rng, NOUNS, 2, 4)
    return Case(line(words), KIND_OF[words[-1]])


@task(
    phrases=("if the number is odd or even", "odd or even for the number"),
    unseen_phrases=("odd or even",),
    sentences=("Is the number odd or even?", "Odd or even?"),
    unseen_sentences=("Is this number even or odd?",),
    options=("odd", "even"),
    num_cases=30,
)
def odd_or_even(rng: np.random.Generator) -> Case:
    number = pick(rng, NUMBERS)
    return Case(str(number), "odd" if number % 2 else "even")


@task(
    phrases=("if the numbers are small or large", "small or large for the numbers"),
    unseen_phrases=("small or large",),
    sentences=("Are the numbers small or large?", "Small or large? Large is 15 or more."),
    unseen_sentences=("Are these numbers large or small?",),
    options=("small", "large"),
)
def small_or_large(rng: np.random.Generator) -> Case:
    is_large = bool(rng.integers(2))
    numbers = some(rng, NUMBERS[_LARGE:] if is_large else NUMBERS[:_LARGE], 1, 3)
    return Case(line(numbers), "large" if is_large else "small")


@task(
    phrases=("if the last letter is a vowel or a consonant", "vowel or consonant for the last letter"),
    unseen_phrases=("vowel or consonant",),
    sentences=("Is the last letter a vowel or a consonant?", "Vowel or consonant: which is the last letter?"),
    unseen_sentences=("Is the letter at the end a vowel or a consonant?",),
    options=("vowel", "consonant"),
)
def vowel_or_consonant(rng: np.random.Generator) -> Case:
    letters = some(rng, LETTERS, 1, 3)
    if rng.integers(2):
        letters[-1] = pick(rng, [letter for letter in VOWELS if letter not in letters[:-1]])
    return Case(line(letters), "vowel" if letters[-1] in VOWELS else "consonant")


@task(
    phrases=("if it is a number, a letter, a word or a name", "what it is: number, letter, word or name"),
    unseen_phrases=("number, letter, word or name",),
    sentences=("Is it a number, a letter, a word or a name?", "Number, letter, word or name?"),
    unseen_sentences=("Which is it: a name, a word, a letter or a number?",),
    options=("number", "letter", "word", "name"),
)
def sort_of_item(rng: np.random.Generator) -> Case:
    sort = pick(rng, ("number", "letter", "word", "name"))
    items = {"number": tuple(NUMBERS), "letter": LETTERS, "word": NOUNS, "name": NAMES}[sort]
    return Case(line(some(rng, items, 1, 2)), sort)


TASKS = (kind_of_word, kind_of_list, kind_of_last, odd_or_even, small_or_large, vowel_or_consonant, sort_of_item)
