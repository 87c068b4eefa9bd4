"""Which of the given options a text names.

What says more goes first: the text is an option, or the label of one (`B`, `(b)`, `B. blue`); it has one in a box
(`\\boxed{B}`) or behind "final answer"; it says "the answer is B", "blue is correct" or "Therefore, B."; it begins with
one, or its last paragraph is a label; one alone stands in it. An option that is denied ("not blue", "blue is wrong") is
not named, and what is taken back ("The answer is B. That is false.") does not count. Where what says most names
several, none is named.

Words and numbers with their minus are compared. Where two options would be the same, as C and C++, so are all signs.
"""

import re
import string
import unicodedata
from collections.abc import Iterator, Sequence
from typing import Literal

from sft.scoring.scorer import same_text
from sft.scoring.words import places, words_of

Labels = Literal["letters", "numbers", "none"]

# A number as a whole, with its minus, and with letters behind it: -3, 2.5, 1/2, 5km. But 3-5 are two.
_NUMBER = re.compile(r"(?:(?<![\w)\]])[-\u2212])?(?:(?<![\w.])\.)?(?<![^\W_])\d+(?:[.,:/]\d+)*[a-z]*")
_AROUND = ".,;:!?\"'`()[]{}*_\u201c\u201d\u2018\u2019"

_UNWRAPPED = re.compile(r"\\(?:text|textbf|mathbf|mathrm)\s?\{([^{}]*)\}")
_EMPHASIS = re.compile(r"(?<!\w)[*_`]+|[*_`]+(?!\w)|</?(?:b|i|em|strong)>")
_NOT = re.compile(r"n['\u2019]t\b|\b(?:anything|everything|all) but\b", re.IGNORECASE)

_BE = r"(?:is|was|must be|should be|would be|has to be)(?:\s+(?:clearly|definitely|therefore|thus))?"
_IS = rf"(?:\s+{_BE}|(?=\s*[:\uff1a])|(?=\s-\s))"
_FINAL = re.compile(rf"\\(?:boxed|fbox)\s?\{{|\bfinal answer{_IS}", re.IGNORECASE)
_ANSWER = re.compile(
    rf"\b(?:answer(?: to (?:the|this|your) question)?|(?:correct|right|best) (?:option|choice|one|letter)){_IS}"
    r"|\b(?:option|choice|solution)(?=\s*:)|\bmy choice is\b"
    r"|答案(?:应该)?[是为]?"
    r"|\b(?:I|I would|I['\u2019]d|I will|I['\u2019]ll) (?:choose|pick|select|say|go with)\b"
    r"|\b(?:so|therefore|thus|hence),? it(?: is|['\u2019]s| must be)\b",
    re.IGNORECASE,
)
_CORRECT = re.compile(
    r"\s(?:is|must be) (?:the )?(?:only |most )?(?:correct|right|best|answer)\b(?! to\b)", re.IGNORECASE
)
_CALLED = re.compile(r"\b(?:option|choice|(?:it|this|that)(?: is| must be|['\u2019]s))(?=\s)", re.IGNORECASE)
_CLOSING = re.compile(
    r"(?:^|(?<=[.!?\n\u3002]))\s*(?:so|therefore|thus|hence|consequently|accordingly|in conclusion|overall)\b[,:]?",
    re.IGNORECASE,
)
_NOT_BUT = re.compile(r"\s*not \S+(?: \S+){0,7}? but (?:rather )?", re.IGNORECASE)
_SENTENCE_END = re.compile(r"[.!?](?=\s|$)|[\n\u3002]")
_TAKEN_BACK = re.compile(
    r"(?:(?<=[.!?,;\n])|(?<=[.!?,;]\s))(?:(?:but|no|wait|sorry|actually|however)\W+){0,3}(?:"
    r"(?:that|this|which)(?: is| was|['\u2019]s)(?: clearly| actually)?"
    r" (?:false|wrong|incorrect|untrue|not (?:so|true|right|correct|the answer))(?=\s*(?:$|[.,;:!\n]))"
    r"|wait, no\b|no, wait\b)",
    re.IGNORECASE,
)

_KIND = r"(?:(?:option|choice|answer|letter)\s+)?"
# What stands behind a label tells it from a word: "A cat" begins with none.
_LABEL = re.compile(
    rf"[\s:\uff1a\u2022#>]*(?:-\s)?[\s(\[\"'\u201c\u2018$\\]*{_KIND}[(\[]?([a-z]|\d{{1,2}})(?!\w|['\u2019]\w)(?:\\?[)\]}}]"
    r"|[\"'\u201d\u2019$]*(?=\s*(?:$|[\n(\u2013\u2014\u3002\uff0c]|[.:,;!](?!\S)|-+\s|/\s?[a-z\d]\b|(?:or|and|because|since)\b)))",
    re.IGNORECASE | re.ASCII,
)
_LABEL_AT_END = re.compile(r"(?:^|[\s(\[])([A-Z]|\d{1,2})[)\]]?$", re.ASCII)
_JOINED = re.compile(r"\s*(?:,?\s*(?:or|and)\b|[,/])", re.IGNORECASE)
_LISTED = re.compile(rf"(?:^\W*|[.;]\s+){_KIND}\(?([a-z]|\d)[).:]\s", re.IGNORECASE | re.MULTILINE)

_CLAUSE = re.compile(
    r"[.!?](?=\s|$)|[,;:](?=\s)|[\n\u3002\uff0c]|\s(?=(?:but|because|since|while|whereas|although|so)\s)", re.IGNORECASE
)
_DENIALS = {"not", "never", "neither", "nor", "none", "cannot", "except", "unlike", "unlikely", "instead", "than"}
_DENIALS |= {"if", "whether", "unless"}
_FAULTS = {"wrong", "incorrect", "false"}
_VERBS = {"is", "was", "are", "were", "does", "do", "did", "can", "could", "would", "has", "seems", "must", "should"}
_DOUBTS = _FAULTS | {"some", "first", "might", "may", "could", "suppose", "assume", "assuming", "otherwise"}


def named_option(text: str, options: Sequence[str], labels: Labels) -> int | None:
    """The number of the option that a text names; None if it names none, or several."""
    for number, option in enumerate(options):
        if same_text(text, option):
            return number
    return _Options(options, labels).named(_plain(text))


class _Options:
    """Options by their words, and by their labels."""

    def __init__(self, options: Sequence[str], labels: Labels) -> None:
        options = [_plain(option) for option in options]
        self._labels = labels
        self._terms = _terms if _differ([_terms(option) for option in options]) else _terms_with_signs
        ways = [self._terms(option) for option in options]
        # What two options have in common names neither of them.
        self._ways = [way if ways.count(way) == 1 else [] for way in ways]
        self._most = 2 * max(map(len, options), default=0) + 100

    def named(self, text: str) -> int | None:
        """The number of the one that a text names."""
        told = self._terms(text)
        if told and told in self._ways:
            return self._ways.index(told)
        text = self._upheld(text)
        for named in (self._final, self._answers, self._begun, self._only):
            if numbers := {*named(text)}:
                return numbers.pop() if len(numbers) == 1 else None
        return None

    def _upheld(self, text: str) -> str:
        """Without each sentence that the next one, or its own end, takes back."""
        parts, end = list[str](), 0
        for found in _TAKEN_BACK.finditer(text):
            said = self._terms(found[0])
            if any(way and said[-len(way) :] == way for way in self._ways):
                continue  # of "true" and "false", "That is false." names one
            before = text[end : found.start()].rstrip().rstrip(".!?,;")
            ends = [0, *(one.end() for one in _SENTENCE_END.finditer(before))]
            parts.append(before[: ends[-1]])
            end = found.end()
        return " ".join([*parts, text[end:]])

    def _final(self, text: str) -> Iterator[int]:
        return self._behind(_FINAL, text)

    def _answers(self, text: str) -> Iterator[int]:
        yield from self._behind(_ANSWER, text)
        for found in _CLOSING.finditer(text):
            said = _SENTENCE_END.split(text[found.end() : found.end() + self._most], maxsplit=1)[0]
            if (closing := self._alone(said)) is not None:
                yield closing
        for found in _CORRECT.finditer(text):
            before = self._clause_before(text, found.start())
            if not _is_doubted(terms := self._terms(before)):
                label = _LABEL_AT_END.search(before)
                ends = [i for i, way in enumerate(self._ways) if way and terms[-len(way) :] == way]
                number = self._labelled(label[1]) if label else None
                yield from [max(ends, key=self._length)] if ends else [] if number is None else [number]

    def _behind(self, pattern: re.Pattern[str], text: str) -> Iterator[int]:
        for found in pattern.finditer(text):
            if not _is_doubted(self._terms(self._clause_before(text, found.start()))):
                behind = text[found.end() : found.end() + self._most]
                yield from self._at_beginning(behind[denied.end() :] if (denied := _NOT_BUT.match(behind)) else behind)

    def _clause_before(self, text: str, end: int) -> str:
        return _CLAUSE.split(text[max(0, end - self._most) : end])[-1]

    def _begun(self, text: str) -> Iterator[int]:
        """What the text begins with, but for a list of the options; and the label that is its last paragraph."""
        text = text.strip()
        first_lines = "\n".join(text.split("\n", 2)[:2])
        listed = [found[1].upper() for found in _LISTED.finditer(first_lines + "\n")]
        if listed[:2] not in (["A", "B"], ["1", "2"]):
            yield from self._at_beginning(text[: self._most])
        if (number := self._alone(text[text.rfind("\n\n") + 1 :])) is not None:
            yield number

    def _alone(self, text: str) -> int | None:
        """The option whose label, or label and words, the text is."""
        label = _LABEL.match(text)
        number = self._labelled(label[1]) if label else None
        if label and number is not None and self._terms(text[label.end() :]) in ([], self._ways[number]):
            return number
        return None

    def _at_beginning(self, text: str) -> Iterator[int]:
        """The option that a text begins with; and another that is joined to it, as in "B or C" and "B) Paris"."""
        label = _LABEL.match(text)
        number = self._labelled(label[1]) if label else None
        if label and number is not None:
            rest, own = self._terms(text[label.end() :]), self._ways[number]
            end = len(own) if rest[: len(own)] == own else 0
            if text[label.end() :].startswith(",") or not _is_denied(rest, 0, end):
                yield number
            line = text[label.end() :].split("\n", 1)[0]
            beside = self._terms(next(filter(self._terms, _CLAUSE.split(line)), ""))
            if beside and beside in self._ways:
                yield self._ways.index(beside)
            joined = _JOINED.match(text, label.end())
            second = _LABEL.match(text, joined.end()) if joined else None
            if second and (other := self._labelled(second[1])) is not None:
                yield other
            return
        terms = self._terms(text)
        first = self._first(terms)
        if first is not None:
            end = len(self._ways[first])
            mark = _CLAUSE.search(text)
            is_asked = mark is not None and mark[0] == "?"
            if not is_asked and not _is_denied(terms, 0, end):
                yield first
            if (other := self._joined(terms[end:])) is not None:
                yield other

    def _only(self, text: str) -> Iterator[int]:
        """All that stand in the text, but for those that are part of a longer one there, or denied."""
        yield from self._behind(_CALLED, text)
        told: list[str] = []
        clauses: list[tuple[int, int]] = []
        for clause in _CLAUSE.split(text):
            terms = self._terms(clause)
            clauses += [(len(told), len(told) + len(terms))] * len(terms)
            told += terms
        covered: set[int] = set()
        for number in sorted(range(len(self._ways)), key=self._length, reverse=True):
            for at in places(self._ways[number], told):
                end = at + self._length(number)
                if {*range(at, end)} <= covered:
                    continue
                covered |= {*range(at, end)}
                begin, stop = clauses[at][0], clauses[end - 1][1]
                if not _is_denied(told[begin:stop], at - begin, end - begin):
                    yield number

    def _first(self, terms: list[str]) -> int | None:
        """The longest with whose words these begin."""
        first = [i for i, way in enumerate(self._ways) if way and terms[: len(way)] == way]
        return max(first, key=self._length) if first else None

    def _joined(self, rest: list[str]) -> int | None:
        """The next of several: of "or blue", and "blue and red"."""
        if rest[:1] in (["or"], ["and"]):
            return self._first(rest[1:])
        other = self._first(rest)
        is_listed = other is not None and rest[self._length(other) :][:1] in (["or"], ["and"])
        return other if is_listed else None

    def _length(self, number: int) -> int:
        return len(self._ways[number])

    def _labelled(self, label: str) -> int | None:
        if self._labels == "none":
            return None
        if [label.lower()] in self._ways:  # of C, C++ and C#, "The answer is C." names the first, not the third
            return self._ways.index([label.lower()])
        if self._labels == "numbers":
            number = int(label) - 1 if label.isdecimal() else -1
        else:
            number = string.ascii_uppercase.find(label.upper())
        return number if 0 <= number < len(self._ways) else None


def _is_doubted(before: list[str]) -> bool:
    """Whether what stands before "the answer is B" takes it back: "some might say", "I do not think"."""
    return bool({*before} & (_DENIALS | _DOUBTS))


def _is_denied(clause: list[str], at: int, end: int) -> bool:
    """Whether a clause denies what stands at these places of it. "Not wrong" denies nothing."""
    behind = clause[end : end + 3] if clause[end : end + 1] and clause[end] in _VERBS else []
    said = {*clause[:at], *behind, *(clause[end : end + 1] if at == end else [])}
    return bool(said & _DENIALS) != bool(said & _FAULTS)


def _differ(ways: Sequence[list[str]]) -> bool:
    return all(ways) and len({*map(tuple, ways)}) == len(ways)


def _plain(text: str) -> str:
    text = _UNWRAPPED.sub(r"\1", unicodedata.normalize("NFC", text))
    return _EMPHASIS.sub("", _NOT.sub(" not", text))


def _terms(text: str) -> list[str]:
    """The words and numbers of a text."""
    terms, end = [], 0
    plain = text.lower()
    for found in _NUMBER.finditer(plain):
        terms += [*words_of(plain[end : found.start()]), found[0].replace("\u2212", "-")]
        end = found.end()
    return [*terms, *words_of(plain[end:])]


def _terms_with_signs(text: str) -> list[str]:
    """What stands between white space, without punctuation around it."""
    parts = text.lower().replace("\u2212", "-").split()
    return [term for part in parts if (term := part.strip(_AROUND))]
