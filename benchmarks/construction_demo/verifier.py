"""Says whether a question of the zoo is one, and whether its answer is right: computed from what a person reads.

A model of the zoo writes tokens with a blank between them and in small letters. So texts are compared token by token.
"""

import re
from collections.abc import Iterable
from functools import cache

import numpy as np

from benchmarks.learning.zoo.tasks import TASKS
from benchmarks.learning.zoo.words import DAYS, LETTERS, MONTHS, NAMES, NOUNS, PLURALS, ZORBISH
from sft.seeds import derive_seed
from tests.benchmarks.zoo_answers import ANSWERS

_NUM_DRAWN = 200
"""Cases that show what the inputs of a task look like."""
_KINDS_OF_WORDS = {
    "a noun": NOUNS,
    "a name": NAMES,
    "a day": DAYS,
    "a month": MONTHS,
    "a letter": LETTERS,
    "a kind": PLURALS.values(),
    "a word of zorbish": ZORBISH.values(),
}
_KIND_OF = {word: kind for kind, words in _KINDS_OF_WORDS.items() for word in words}

NO_QUESTION = "does not ask for this task"
NO_INPUT = "not an input of this task"
WRONG = "wrong answer"


def what_is_wrong(task: str, prompt: str, answer: str) -> str | None:
    """`NO_QUESTION`, `NO_INPUT` or `WRONG`; None if all is right."""
    instruction, _, given = (_readable(part) for part in re.sub(r"\s*\n\s*", "\n", prompt).partition("\n"))
    if not any(pattern.fullmatch(_tokens(instruction)) for pattern in _wordings(task)):
        return NO_QUESTION
    if not _shape(given) <= _shapes(task) or bool(given) != _has_input(task):
        return NO_INPUT
    try:
        right = ANSWERS[task](instruction, given)
    except (ArithmeticError, LookupError, TypeError, ValueError, StopIteration, AttributeError):
        return NO_INPUT
    return None if _tokens(right) == _tokens(answer) else WRONG


def _tokens(text: str) -> str:
    return " ".join(re.findall(r"->|\w+|[^\w\s]", text.lower()))


def _readable(text: str) -> str:
    """As a person writes it: no blank before the mark that ends a sentence or a clause."""
    return re.sub(r" (?=[.?!]|,(?! \"))", "", _tokens(text)) if "[" not in text and "{" not in text else text.strip()


@cache
def _wordings(task: str) -> list[re.Pattern[str]]:
    texts = [_tokens(re.sub(r"\{\w+\}", "slotslot", wording)) for wording in TASKS[task].wordings]
    return [re.compile(re.escape(text).replace("slotslot", r"(\w+)")) for text in texts]


@cache
def _drawn(task: str) -> list[str]:
    rng = np.random.default_rng(derive_seed(0, "what inputs look like", task))
    return [TASKS[task].make(rng).input for _ in range(_NUM_DRAWN)]


@cache
def _shapes(task: str) -> frozenset[str]:
    return frozenset(kind for text in _drawn(task) for kind in _shape(text))


@cache
def _has_input(task: str) -> bool:
    return any(_drawn(task))


def _shape(text: str) -> frozenset[str]:
    return frozenset(_kinds(_tokens(text).split()))


def _kinds(tokens: Iterable[str]) -> Iterable[str]:
    return ("a number" if token.isdigit() else _KIND_OF.get(token, token) for token in tokens)
