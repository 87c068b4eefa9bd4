"""Which score a task gets if the config names none: the one that fits the kind of its references."""

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from sft.scoring.json_equal import whole_json
from sft.scoring.scorer import Question
from sft.scoring.tool_call import is_nothing_but_calls
from sft.scoring.words import words_of
from sft.scoring.written_number import amount_in

SHORT_WORDS = 5
"""Up to so many words can be expected to be written in the same way."""
_MOST = 0.9
# No date, no list, and no code of which a zero would be lost.
_ONLY_A_NUMBER = re.compile(
    r"[-+\u2212]?\s*[$€£¥]?\s*(?!0\d)(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d+|(?<=\d)/\d+|(?<=\d))\s*%?\.?"
)


class DefaultScore(NamedTuple):
    """A score and why it was chosen, for people."""

    name: str
    why: str


def default_score(questions: Sequence[Question], allow_code: bool) -> DefaultScore:
    """The score of a task with these questions.

    Code is run only if that is allowed. If it is not, its answers are compared with the reference as texts, which says
    little of whether it works; `why` says so.
    """
    if _all(questions, lambda question: bool(question.tests)):
        if allow_code:
            return DefaultScore("code", "the records have tests")
        told = "the records have tests, which are not run unless `allow_code` is true; texts are compared instead"
        return DefaultScore("rouge_l" if _all(questions, _has_references) else "length", told)
    if _all(questions, lambda question: bool(question.tool_calls) or _every(question, is_nothing_but_calls)):
        return DefaultScore("tool_call", "the references call tools")
    if _all(questions, lambda question: bool(question.options)):
        return DefaultScore("choice", "the records have options")
    if not _all(questions, _has_references, _MOST):
        return DefaultScore("length", "the records have no references")
    if _all(questions, lambda question: _every(question, _is_json)):
        return DefaultScore("json", "the references are JSON")
    if _all(questions, lambda question: _every(question, _is_number)):
        return DefaultScore("number", "the references are numbers")
    if _all(questions, lambda question: _every(question, _is_short), _MOST):
        return DefaultScore("exact_match", f"the references have at most {SHORT_WORDS} words")
    return DefaultScore("rouge_l", "the references are texts")


def _all(questions: Sequence[Question], has: Callable[[Question], bool], share: float = 1.0) -> bool:
    """Whether so large a share of the questions has it. A score that others need is chosen only if all have it."""
    return bool(questions) and sum(map(has, questions)) >= share * len(questions)


def _every(question: Question, has: Callable[[str], object]) -> bool:
    return bool(question.references) and all(map(has, question.references))


def _has_references(question: Question) -> bool:
    return bool(question.references)


def _is_json(text: str) -> bool:
    """Whether it is an object or a list: a number alone is no JSON to people."""
    return isinstance(whole_json(text), dict | list)


def _is_number(text: str) -> bool:
    number, _, again = text.rpartition("####")[2].strip().partition("\n")
    is_alone = _ONLY_A_NUMBER.fullmatch(number.strip()) is not None
    found = amount_in(text)
    # MetaMathQA says it again below: "The answer is: 72".
    return is_alone and found is not None and (not again or amount_in(again) == found)


def _is_short(text: str) -> bool:
    return len(words_of(text)) <= SHORT_WORDS
