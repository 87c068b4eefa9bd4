"""Words of messages about a config: which one was meant by one that it does not know, and what a value has to be."""

import difflib
from collections.abc import Sequence
from typing import Any, Final

from sft.foreign.answers import COMMON_VALUES

LIKE: Final = 0.67
"""With less similarity, a word is not suggested for another: two letters of three are too few (`cpu` for `gpu`)."""

_WORDING = (
    ("Input should be", "must be"),
    ("String should have", "must have"),
    ("a valid boolean, unable to interpret input", "true or false"),
    ("a valid boolean", "true or false"),
    ("a valid integer", "a whole number"),
    ("a valid number", "a number"),
    (", unable to parse string as an integer", ""),
    (", unable to parse string as a number", ""),
    ("valid dictionary", "mapping"),
    ("valid tuple", "list"),
    ("Tuple should have", "must have"),
    (" after validation", ""),
    ("Value should have", "must have"),
    ("String should match pattern", "must match the pattern"),
)


def did_you_mean(given: Any, words: Sequence[str], otherwise: str = "") -> str:
    """The way out where one of a few words is needed; `otherwise`, if none of them is like what was given."""
    if str(given) in words:
        return f"write {given}, without quotes" if isinstance(given, str) else f'write "{given}", in quotes'
    close = _near(given, words) if isinstance(given, str) and given else []
    if len(close) == 1:
        return f"did you mean `{close[0]}`?"
    return otherwise if otherwise and not close else f"choose one of {', '.join(close or words)}"


def in_our_words(rule: str) -> str:
    """What pydantic says that a value has to be, as other messages say it."""
    for pydantic_text, ours in _WORDING:
        rule = rule.replace(pydantic_text, ours)
    return rule


def _near(given: str, words: Sequence[str]) -> list[str]:
    """What others call so, or else what begins alike, or else what is spelt alike."""
    if COMMON_VALUES.get(given) in words:
        return [COMMON_VALUES[given]]
    if begins := [word for word in words if word.startswith(given) or given.startswith(word)]:
        return begins
    # With another number, it is another thing.
    same_number = [word for word in words if _digits(word) == _digits(given)]
    return difflib.get_close_matches(given, same_number, n=1, cutoff=LIKE)


def _digits(word: str) -> str:
    return "".join(filter(str.isdecimal, word))
