"""Zorbish, a toy language: a word for each animal and color, and the color stands behind the animal."""

import numpy as np

from benchmarks.learning.zoo.task import Case, task
from benchmarks.learning.zoo.words import KINDS, ZORBISH, line, pick, some

_WORDS = tuple(ZORBISH)


@task(
    phrases=("the zorbish word for {word}", "{word} in zorbish"),
    unseen_phrases=("how to say {word} in zorbish",),
    sentences=("What is {word} in zorbish?", "Translate {word} into zorbish."),
    unseen_sentences=("Which zorbish word is {word}?",),
    num_cases=12,
)
def to_zorbish(rng: np.random.Generator) -> Case:
    word = pick(rng, _WORDS)
    return Case("", ZORBISH[word], {"word": word})


@task(
    phrases=("the english word for {word}", "{word} in english"),
    unseen_phrases=("how to say {word} in english",),
    sentences=("What is {word} in english?", "Translate {word} into english."),
    unseen_sentences=("Which english word is {word}?",),
    num_cases=12,
)
def to_english(rng: np.random.Generator) -> Case:
    word = pick(rng, _WORDS)
    return Case("", word, {"word": ZORBISH[word]})


def _phrase(rng: np.random.Generator) -> tuple[str, str]:
    return pick(rng, KINDS["color"]), pick(rng, KINDS["animal"])


@task(
    phrases=("the text in zorbish", "how to say the text in zorbish"),
    unseen_phrases=("the zorbish for the text",),
    sentences=("Translate the text into zorbish.", "What is the text in zorbish?"),
    unseen_sentences=("Please translate the text into zorbish.",),
    num_cases=36,
)
def text_to_zorbish(rng: np.random.Generator) -> Case:
    color, animal = _phrase(rng)
    return Case(f"the {color} {animal}", f"{ZORBISH[animal]} {ZORBISH[color]}")


@task(
    phrases=("the text in english", "how to say the text in english"),
    unseen_phrases=("the english for the text",),
    sentences=("Translate the text into english.", "What is the text in english?"),
    unseen_sentences=("Please translate the text into english.",),
    num_cases=36,
)
def text_to_english(rng: np.random.Generator) -> Case:
    color, animal = _phrase(rng)
    return Case(f"{ZORBISH[animal]} {ZORBISH[color]}", f"the {color} {animal}")


@task(
    phrases=("each word in zorbish", "the zorbish word for each word"),
    unseen_phrases=("for each word the zorbish word",),
    sentences=("Translate each word into zorbish.", "What is each word in zorbish?"),
    unseen_sentences=("Please translate each word into zorbish.",),
)
def words_to_zorbish(rng: np.random.Generator) -> Case:
    words = some(rng, _WORDS, 2, 4)
    return Case(line(words), line([ZORBISH[word] for word in words]))


@task(
    phrases=("each word in english", "the english word for each word"),
    unseen_phrases=("for each word the english word",),
    sentences=("Translate each word into english.", "What is each word in english?"),
    unseen_sentences=("Please translate each word into english.",),
)
def words_to_english(rng: np.random.Generator) -> Case:
    words = some(rng, _WORDS, 2, 4)
    return Case(line([ZORBISH[word] for word in words]), line(words))


TASKS = (to_zorbish, to_english, text_to_zorbish, text_to_english, words_to_zorbish, words_to_english)
