"""Words and their letters."""

import numpy as np

from benchmarks.learning.zoo.task import Case, task
from benchmarks.learning.zoo.words import NOUNS, line, pick, some_words


@task(
    phrases=("the letters of the word", "the word letter by letter", "how the word is written in letters"),
    unseen_phrases=("each letter of the word in order",),
    sentences=("Spell the word.", "How do you spell this word?", "Which letters does the word have?"),
    unseen_sentences=("Please spell this word.",),
    num_cases=30,
)
def spell(rng: np.random.Generator) -> Case:
    word = pick(rng, NOUNS)
    return Case(word, line(word))


@task(
    phrases=("the letters of the word in reverse", "the letters of the word from last to first"),
    unseen_phrases=("the word letter by letter in reverse",),
    sentences=(
        "Spell the word in reverse.",
        "Reverse the letters of the word.",
        "How do you spell this word in reverse?",
    ),
    unseen_sentences=("Please spell this word in reverse.",),
    num_cases=30,
)
def spell_reverse(rng: np.random.Generator) -> Case:
    word = pick(rng, NOUNS)
    return Case(word, line(word[::-1]))


@task(
    phrases=("the first letter of the word", "the letter at the start of the word"),
    unseen_phrases=("the letter that is first in the word",),
    sentences=("Which letter is first in the word?", "With which letter does the word start?"),
    unseen_sentences=("Which is the first letter of this word?",),
    num_cases=30,
)
def first_letter(rng: np.random.Generator) -> Case:
    word = pick(rng, NOUNS)
    return Case(word, word[0])


@task(
    phrases=("the last letter of the word", "the letter at the end of the word"),
    unseen_phrases=("the letter that is last in the word",),
    sentences=("Which letter is last in the word?", "With which letter does the word end?"),
    unseen_sentences=("Which is the last letter of this word?",),
    num_cases=30,
)
def last_letter(rng: np.random.Generator) -> Case:
    word = pick(rng, NOUNS)
    return Case(word, word[-1])


@task(
    phrases=("the word with these letters", "the word that these letters make"),
    unseen_phrases=("the word that is written with these letters",),
    sentences=("Which word do these letters make?", "Join the letters to make one word."),
    unseen_sentences=("Which word has these letters?",),
    num_cases=30,
)
def join_letters(rng: np.random.Generator) -> Case:
    word = pick(rng, NOUNS)
    return Case(line(word), word)


@task(
    phrases=("the first letter of each word", "the letters at the start of each word"),
    unseen_phrases=("for each word its first letter",),
    sentences=("With which letter does each word start?", "Which letter is first in each word?"),
    unseen_sentences=("For each word, which letter is first?",),
)
def first_letters(rng: np.random.Generator) -> Case:
    words = some_words(rng, 2, 4)
    return Case(line(words), line([word[0] for word in words]))


TASKS = (spell, spell_reverse, first_letter, last_letter, join_letters, first_letters)
