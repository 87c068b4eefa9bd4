"""JSON, written with a blank between its tokens."""

import numpy as np

from benchmarks.learning.zoo.task import Case, task
from benchmarks.learning.zoo.words import line, some_numbers, some_words


def json_list(words: list[str]) -> str:
    """A list as the zoo writes it: `[ "cat" , "dog" ]`."""
    return "[ " + " , ".join(f'"{word}"' for word in words) + " ]"


def json_object(pairs: dict[str, int]) -> str:
    """An object as the zoo writes it: `{ "cat" : 3 , "dog" : 5 }`."""
    return "{ " + " , ".join(f'"{key}" : {value}' for key, value in pairs.items()) + " }"


def _pairs(rng: np.random.Generator, least: int = 1, most: int = 3) -> dict[str, int]:
    keys = some_words(rng, least, most)
    return dict(zip(keys, some_numbers(rng, len(keys), len(keys)), strict=True))


@task(
    phrases=("the words as a json list", "a json list of the words"),
    unseen_phrases=("the list of words as json",),
    sentences=("Make a json list of the words.", "Write the words in json.", "Turn the words into a json list."),
    unseen_sentences=("Please make a json list of these words.",),
)
def to_json_list(rng: np.random.Generator) -> Case:
    words = some_words(rng, 1, 4)
    return Case(line(words), json_list(words))


@task(
    phrases=("the words of the json list", "the words in the json list without json"),
    unseen_phrases=("each word of the json list",),
    sentences=("Which words are in the json list?", "Turn the json list into words."),
    unseen_sentences=("Which words does the json list have?",),
)
def from_json_list(rng: np.random.Generator) -> Case:
    words = some_words(rng, 1, 4)
    return Case(json_list(words), line(words))


@task(
    phrases=("the words and numbers as a json object", "a json object of the words and numbers"),
    unseen_phrases=("the list of words and numbers as a json object",),
    sentences=("Make a json object of the words and numbers.", "Turn the words and numbers into a json object."),
    unseen_sentences=("Please make a json object of these words and numbers.",),
)
def to_json_object(rng: np.random.Generator) -> Case:
    pairs = _pairs(rng)
    return Case(" , ".join(f"{key} {value}" for key, value in pairs.items()), json_object(pairs))


@task(
    phrases=("the value of {key}", "the number of {key} in the json object"),
    unseen_phrases=("the value of {key} in the json object",),
    sentences=("Which value does {key} have?", "What is the value of {key}?"),
    unseen_sentences=("Which number is the value of {key}?",),
)
def json_value(rng: np.random.Generator) -> Case:
    pairs = _pairs(rng, 2, 3)
    key = list(pairs)[int(rng.integers(len(pairs)))]
    return Case(json_object(pairs), str(pairs[key]), {"key": key})


@task(
    phrases=("the keys of the json object", "the words of the json object"),
    unseen_phrases=("each key of the json object",),
    sentences=("Which keys does the json object have?", "Which keys are in the json object?"),
    unseen_sentences=("Which words are keys of the json object?",),
)
def json_keys(rng: np.random.Generator) -> Case:
    pairs = _pairs(rng)
    return Case(json_object(pairs), line(list(pairs)))


@task(
    phrases=("the number of words in the json list", "how many words the json list has"),
    unseen_phrases=("how many words there are in the json list",),
    sentences=("How many words are in the json list?", "Count the words of the json list."),
    unseen_sentences=("How many words does the json list have?",),
)
def json_count(rng: np.random.Generator) -> Case:
    words = some_words(rng, 1, 4)
    return Case(json_list(words), str(len(words)))


@task(
    phrases=("a json list of the sorted words", "the words as a sorted json list"),
    unseen_phrases=("a json list of the words in alphabet order",),
    sentences=("Sort the words and make a json list.", "Make a sorted json list of the words."),
    unseen_sentences=("Turn the words into a sorted json list.",),
)
def to_sorted_json_list(rng: np.random.Generator) -> Case:
    words = some_words(rng, 2, 3)
    return Case(line(words), json_list(sorted(words)))


TASKS = (to_json_list, from_json_list, to_json_object, json_value, json_keys, json_count, to_sorted_json_list)
