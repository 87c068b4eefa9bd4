"""What is true. As many answers are true as are false."""

import numpy as np

from benchmarks.learning.zoo.task import Case, task
from benchmarks.learning.zoo.words import (
    KIND_OF,
    KINDS,
    NAMES,
    NOUNS,
    PLURALS,
    line,
    pick,
    some,
    some_numbers,
    some_words,
)

_TRUTH = ("true", "false")
_ANSWERS = ("yes", "no")


def _coin(rng: np.random.Generator) -> bool:
    return bool(rng.integers(2))


@task(
    phrases=("if it is true or false that {a} is larger than {b}",),
    unseen_phrases=("if {a} is larger than {b}, true or false",),
    sentences=("True or false: {a} is larger than {b}.", "{a} is larger than {b}. True or false?"),
    unseen_sentences=("Is it true or false that {a} is larger than {b}?",),
    options=_TRUTH,
)
def true_larger(rng: np.random.Generator) -> Case:
    a, b = some_numbers(rng, 2, 2)
    return Case("", _TRUTH[a <= b], {"a": a, "b": b})


@task(
    phrases=("if it is true or false that {word} is of the kind {kind}",),
    unseen_phrases=("if {word} is of the kind {kind}, true or false",),
    sentences=("True or false: {word} is of the kind {kind}.", "{word} is of the kind {kind}. True or false?"),
    unseen_sentences=("Is it true or false that {word} is of the kind {kind}?",),
    options=_TRUTH,
)
def true_kind(rng: np.random.Generator) -> Case:
    word, is_true = pick(rng, NOUNS), _coin(rng)
    others = [kind for kind in KINDS if kind != KIND_OF[word]]
    return Case("", _TRUTH[not is_true], {"word": word, "kind": KIND_OF[word] if is_true else pick(rng, others)})


@task(
    phrases=("if the word {word} is in the list, yes or no",),
    unseen_phrases=("if the list has the word {word}, yes or no",),
    sentences=("Is {word} in the list?", "Is the word {word} in the list, yes or no?"),
    unseen_sentences=("Is there the word {word} in the list?",),
    options=_ANSWERS,
)
def is_in_list(rng: np.random.Generator) -> Case:
    other, *words = some_words(rng, 3, 5)
    is_in = _coin(rng)
    return Case(line(words), _ANSWERS[not is_in], {"word": pick(rng, words) if is_in else other})


@task(
    phrases=("if all words are {kind}, yes or no",),
    unseen_phrases=("if each word is one of the {kind}, yes or no",),
    sentences=("Are all words {kind}?", "Are all of the words {kind}, yes or no?"),
    unseen_sentences=("Is it true that all words are {kind}, yes or no?",),
    options=_ANSWERS,
)
def are_all_of_kind(rng: np.random.Generator) -> Case:
    kind, other = some(rng, tuple(KINDS), 2, 2)
    words, is_true = some(rng, KINDS[kind], 2, 4), _coin(rng)
    if not is_true:
        words[int(rng.integers(len(words)))] = pick(rng, KINDS[other])
    return Case(line(words), _ANSWERS[not is_true], {"kind": PLURALS[kind]})


@task(
    phrases=("if {name} has the {thing}, yes or no",),
    unseen_phrases=("if the {thing} is what {name} has, yes or no",),
    sentences=("Does {name} have the {thing}?", "Does {name} have the {thing}, yes or no?"),
    unseen_sentences=("Is it true that {name} has the {thing}, yes or no?",),
    options=_ANSWERS,
)
def has_the_thing(rng: np.random.Generator) -> Case:
    names = some(rng, NAMES, 2, 3)
    owners = dict(zip(names, some(rng, KINDS["tool"] + KINDS["clothes"], len(names), len(names)), strict=True))
    name, other = some(rng, names, 2, 2)
    is_true = _coin(rng)
    told = " ".join(f"{who} has the {thing}." for who, thing in owners.items())
    return Case(told, _ANSWERS[not is_true], {"name": name, "thing": owners[name if is_true else other]})


@task(
    phrases=("if {a} and {b} is true or false",),
    unseen_phrases=("if it is true or false: {a} and {b}",),
    sentences=("{a} and {b}: true or false?", "True or false: {a} and {b}."),
    unseen_sentences=("Is {a} and {b} true or false?",),
    options=_TRUTH,
)
def both_true(rng: np.random.Generator) -> Case:
    first, second = _coin(rng) or _coin(rng), _coin(rng) or _coin(rng)
    parts = [
        f"{number} is {'larger' if holds else 'smaller'} than {number - size}"
        for holds, number, size in zip((first, second), rng.integers(10, 20, 2).tolist(), (5, 10), strict=True)
    ]
    return Case("", _TRUTH[not (first and second)], {"a": parts[0], "b": parts[1]})


TASKS = (true_larger, true_kind, is_in_list, are_all_of_kind, has_the_thing, both_true)
