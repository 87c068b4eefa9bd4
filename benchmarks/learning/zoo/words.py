"""What the zoo talks about: a small, fixed set of words, so that all tasks share them and every word is met often."""

from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np

Item = TypeVar("Item")

KINDS: Mapping[str, tuple[str, ...]] = {
    "animal": ("ant", "bee", "cat", "dog", "fox", "hen"),
    "food": ("egg", "fig", "jam", "nut", "pear", "rice"),
    "color": ("blue", "gold", "grey", "pink", "red", "tan"),
    "tool": ("axe", "box", "cup", "key", "lamp", "pen"),
    "clothes": ("belt", "cap", "coat", "hat", "shoe", "sock"),
}
PLURALS: Mapping[str, str] = {
    "animal": "animals",
    "food": "foods",
    "color": "colors",
    "tool": "tools",
    "clothes": "clothes",
}
KIND_OF: Mapping[str, str] = {word: kind for kind, words in KINDS.items() for word in words}
NOUNS: tuple[str, ...] = tuple(KIND_OF)
NAMES = ("anna", "ben", "carl", "dora", "emil", "fay", "gus", "hugo", "ida", "jan")
DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
MONTHS = (
    *("january", "february", "march", "april", "may", "june", "july"),
    *("august", "september", "october", "november", "december"),
)
LETTERS = tuple("abcdefghijklmnopqrstuvwxyz")
VOWELS = tuple("aeiou")
NUMBERS = range(30)
"""Those in lists. Sums are below `LARGEST`."""
LARGEST = 50
ZORBISH: Mapping[str, str] = dict(
    zip(
        (*KINDS["animal"], *KINDS["color"]),
        (
            *("bima", "dolu", "fenk", "gola", "hurt", "jopa"),
            *("oska", "polt", "quen", "ruma", "sarn", "tivo"),
        ),
        strict=True,
    )
)
"""A toy language: a word for each animal and color. The color stands behind the animal."""


def pick(rng: np.random.Generator, items: Sequence[Item]) -> Item:
    return items[int(rng.integers(len(items)))]


def some(rng: np.random.Generator, items: Sequence[Item], least: int, most: int) -> list[Item]:
    """From `least` to `most` different items, in any order."""
    return [items[place] for place in rng.permutation(len(items))[: int(rng.integers(least, most + 1))]]


def some_words(rng: np.random.Generator, least: int = 2, most: int = 4) -> list[str]:
    return some(rng, NOUNS, least, most)


def some_numbers(rng: np.random.Generator, least: int = 2, most: int = 4) -> list[int]:
    return some(rng, NUMBERS, least, most)


def line(items: Sequence[object]) -> str:
    """Items as the tasks write lists: with a blank between."""
    return " ".join(map(str, items))
