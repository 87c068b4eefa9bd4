"""Which of the given options a written answer names.

Looked for in this order: the answer is an option, or the label of one (`B`, `(b)`, `B. blue`); it begins with one; one
alone stands in it. An answer that names several, and begins with none of them, names none.

Words and numbers with their minus are compared. Where two options would be the same, as C and C++, so are all signs.
"""

import re
import string
import unicodedata
from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

from sft.scoring.metric import Metric
from sft.scoring.scorer import JUDGED, Answer, Need, Question, Settings, Verdict, failure, same_text
from sft.scoring.words import places, words_of

# A number as a whole, with its minus, and with letters behind it: -3, 2.5, 1/2, 5km. But 3-5 are two.
_NUMBER = re.compile(r"(?:(?<![\w)\]])[-\u2212])?(?:(?<![\w.])\.)?(?<![^\W_])\d+(?:[.,:/]\d+)*[a-z]*")
_AROUND = ".,;:!?\"'`()[]{}*_\u201c\u201d\u2018\u2019"

# At the beginning, or behind "answer is", wherever that stands.
_LABEL = re.compile(
    r"^(?:\((\w{1,2})\)|(\w{1,2})[.):](?= |$)|(\w{1,2})$)"
    r"|\banswer(?: is)? ?:? ?(?:option )?\(?(\w{1,2})\b(?=[).:,]|$)",
    re.IGNORECASE,
)


class ChoiceAccuracy(Settings):
    """Whether the option that the answer names is a reference; with what guessing would give."""

    metrics: ClassVar[Mapping[str, Metric]] = {
        "accuracy": Metric("accuracy", "answers that name the right option", "higher", JUDGED, is_share=True),
        "chance": Metric("chance", "right answers by guessing", "neither", JUDGED, is_share=True),
    }
    needs: ClassVar[Need] = "options"

    labels: Literal["letters", "numbers", "none"] = "letters"
    """What options are also known by: A, B, C … or 1, 2, 3 … in their order."""

    def judge(self, answer: Answer, question: Question) -> Verdict:
        """1 or 0, and the share of the options that is right."""
        options = question.options
        if not question.references:
            return failure("the record has no references")
        right = {self._named(reference, options) for reference in question.references} - {None}
        if not right:
            return failure(f"the reference {question.references[0]!r} is none of the options")
        named = self._named(answer.text, options)
        note = "names none of the options, or several" if named is None else f"names {options[named]!r}"
        chance = len(right) / len({option.strip() for option in options})
        return Verdict({"accuracy": float(named in right), "chance": chance}, note)

    def _named(self, text: str, options: Sequence[str]) -> int | None:
        """The number of the option that a text names."""
        for number, option in enumerate(options):
            if same_text(text, option):
                return number
        terms_of = _terms if _differ([_terms(option) for option in options]) else _terms_with_signs
        told = terms_of(text)
        ways = [terms_of(option) for option in options]
        # What two options have in common names neither of them.
        ways = [way if ways.count(way) == 1 else [] for way in ways]
        if told and told in ways:
            return ways.index(told)
        if (labelled := self._labelled(text, ways)) is not None:
            return labelled
        first = [number for number, way in enumerate(ways) if way and told[: len(way)] == way]
        if first:
            return max(first, key=lambda number: len(ways[number]))
        return _only(told, ways)

    def _labelled(self, text: str, ways: Sequence[list[str]]) -> int | None:
        found = _LABEL.search(" ".join(text.split())) if self.labels != "none" else None
        if not found:
            return None
        label = next(filter(None, found.groups())).upper()
        if [label.lower()] in ways:  # of C, C++ and C#, "The answer is C." names the first, not the third
            return ways.index([label.lower()])
        if self.labels == "numbers":
            number = int(label) - 1 if label.isascii() and label.isdecimal() else -1
        else:
            number = string.ascii_uppercase.find(label) if len(label) == 1 else -1
        return number if 0 <= number < len(ways) else None


def _only(told: list[str], ways: Sequence[list[str]]) -> int | None:
    """The one option whose words stand in the text, but for those that are part of a longer one there."""
    covered: set[int] = set()
    found: dict[tuple[str, ...], int] = {}
    for number in sorted(range(len(ways)), key=lambda number: -len(ways[number])):
        for at in places(ways[number], told):
            span = set(range(at, at + len(ways[number])))
            if not span <= covered:
                found.setdefault(tuple(ways[number]), number)
                covered |= span
    return next(iter(found.values())) if len(found) == 1 else None


def _differ(ways: Sequence[list[str]]) -> bool:
    return all(ways) and len({*map(tuple, ways)}) == len(ways)


def _terms(text: str) -> list[str]:
    """The words and numbers of a text."""
    terms, end = [], 0
    plain = unicodedata.normalize("NFC", text).lower()
    for found in _NUMBER.finditer(plain):
        terms += [*words_of(plain[end : found.start()]), found[0].replace("\u2212", "-")]
        end = found.end()
    return [*terms, *words_of(plain[end:])]


def _terms_with_signs(text: str) -> list[str]:
    """What stands between white space, without punctuation around it."""
    parts = unicodedata.normalize("NFC", text).lower().replace("\u2212", "-").split()
    return [term for part in parts if (term := part.strip(_AROUND))]
