"""Which of the given options a text names.

It is looked for where a text says most; the first kind of place that holds any decides:

- the whole text is an option, its label or both (`blue`, `B`, `(b)`, `B. blue`);
- behind `\\boxed{`, `<answer>` or "final answer";
- what the text calls the answer: "the answer is B", "blue is correct", "Therefore, B.";
- its last paragraph, or its first clause;
- behind "it is";
- anywhere.

Where such a place holds several, none is named. What is denied ("not blue", "blue is wrong") does not count, nor what
is taken back ("The answer is B. That is false."). Of numbers, those that are computed with do not count either.

Words and numbers with their minus are compared. Where two options would be the same, as C and C++, so are all signs.
"""

import re
import string
import unicodedata
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Literal

from sft.scoring.scorer import same_text
from sft.scoring.words import words_of

Labels = Literal["letters", "numbers", "none"]

# A number as a whole, with its minus, and with letters behind it: -3, 2.5, 1/2, 5km. But 3-5 are two.
_NUMBER = re.compile(r"(?:(?<![\w)\]])[-\u2212])?(?:(?<![\w.])\.)?(?<![^\W_])\d+(?:[.,:/]\d+)*[a-z]*")
_AROUND = ".,;:!?\"'`()[]{}*_\u201c\u201d\u2018\u2019"
# Of numbers, what is computed or compared is none of them: of "12 * 3 = 36", the value remains; of "12 < 36", nothing.
_PLAIN_NUMBER = re.compile(r"\W{0,3}\d+(?:[.,/]\d+)*(?:\s?[^\W\d]+|\s?%)?\W{0,2}")
_OPERATOR = (
    r"\s?(?:[-+*/x\u00d7\u00b7\u00f7^\u2212<>\u2264\u2265\u2260]|\\(?:times|cdot|div|neq?|leq?|geq?)\b"
    r"|times|plus|minus|(?:multiplied|divided) by)\s?"
)
_OPERAND = r"[(\[$€£]*[-\u2212]?(?<![\d.,])\d+(?:[.,/]\d+)*+%?[)\]]*"
_CALCULATION = re.compile(rf"(?<![\w.,]){_OPERAND}(?:{_OPERATOR}{_OPERAND})++")

_UNWRAPPED = re.compile(r"\\(?:text|textbf|mathbf|mathrm)\s?\{([^{}]*)\}")
# A star between numbers is a sign of times.
_EMPHASIS = re.compile(r"(?!(?<=\d\s)\*\s?[-\d($\\])(?:(?<!\w)[*_`]+|[*_`]+(?!\w))|</?(?:b|i|em|strong)>")
_NOT = re.compile(r"n['\u2019]t\b|\b(?:anything|everything|all) but\b", re.IGNORECASE)

_BE = r"(?:is|was|must be|should be|would be|has to be)(?:\s+(?:clearly|definitely|therefore|thus))?"
_IS = rf"(?:\s+{_BE}|(?=[\"']?\s*[:\uff1a])|(?=\s-\s))"
# A heading asks for what stands below it.
_HEADING = re.compile(
    r"^([ \t#]*(?:(?:the|my) )?(?:(?:final|correct|right|best) )?(?:answer|conclusion))[ \t]*(?=\n)",
    re.IGNORECASE | re.MULTILINE,
)
_FINAL = re.compile(rf"\\(?:boxed|fbox)\s?\{{|<answer>|\bfinal answer(?:{_IS}|(?=\s\())", re.IGNORECASE)
_ANSWER = re.compile(
    rf"\b(?:answer(?: to (?:the|this|your) question)?|(?:correct|right|best) (?:option|choice|one|letter|fit|match)"
    rf"|my (?:choice|pick|guess)){_IS}"
    r"|\b(?:option|choice|solution|conclusion|response|pick|guess|correct)(?=\s*:)"
    r"|\b(?:that|this|which) (?:only )?leaves(?: only| us with)?\b"
    r"|\bI(?:['\u2019](?:d|ll|m)| would| will)? (?:choose|pick|select|say|guess|go(?:ing)? with)\b"
    r"|答案(?:应该)?[是为]?",
    re.IGNORECASE,
)
_CORRECT = re.compile(
    r"\s(?:is|must be) (?:the )?(?:only |most )?(?:correct|right|best|answer)\b"
    r"|\s(?:fits|applies)(?: best)?(?=[.!]?\s*(?:$|\n))",
    re.IGNORECASE,
)
_CLOSING = re.compile(
    r"(?:(?:^|(?<=[.!?\n\u3002]))[^\S\n]*+(?:in conclusion|overall|by elimination|probably|(?:most )?likely"
    r"|so|therefore|thus|hence)|,\s(?:so|therefore|thus|hence))\b[,:]?",
    re.IGNORECASE | re.MULTILINE,
)
_CALLED = re.compile(r"\b(?:it|this|that)(?: is| must be| would be|['\u2019]s)(?=\s)", re.IGNORECASE)
# A sentence, or its beginning, with what takes it back.
_TAKEN_BACK = re.compile(
    r"(?:^|(?<=[.!?\n]))[^.!?\n]*?[.!?,;\n]\s?(?:(?:but|no),? )?(?:(?:that|this|which)(?: is| was|['\u2019]s)"
    r" (?:false|wrong|incorrect|untrue|not (?:so|true|right|correct|the answer))(?=\s*(?:$|[.,;:!\n]))"
    r"|wait, no\b|no, wait\b|correction(?=:)"
    r"|(?:(?:wait|actually|sorry)\W+)++(?=(?:it|that|the (?:\w+ )?answer)(?: is|['\u2019]s|\s*:)\s))",
    re.IGNORECASE,
)

_KIND = r"(?:(?:option|choice|answer|letter)\s+)?"
# What stands behind a label tells it from a word: "A cat" begins with none.
_LABEL = re.compile(
    rf"(?:[\s:\uff1a\u2022#>\"']|[\u2192\u21d2]|[-=]>)*+(?:-\s)?[\s(\[\"'\u201c\u2018$\\]*{_KIND}[(\[]?([a-z]|\d{{1,2}})(?!\w|['\u2019]\w)(?:\\?[)\]}}]"
    r"|[\"'\u201d\u2019$]*(?=\s*(?:$|[\n(<}}\u2013\u2014\u3002\uff0c]|[.:,;!](?!\S)|-+\s|/\s?[a-z\d]\b|(?:or|and|because|since)\b)))",
    re.IGNORECASE | re.ASCII,
)
_LABEL_AT_END = re.compile(r"(?:^|[\s(\[])([A-Z]|\d{1,2})[)\]]?$", re.ASCII)
_JOINED = re.compile(r"\s*(?:,?\s*(?:or|and)\b|[,/])", re.IGNORECASE)

_SENTENCE_END = re.compile(r"[.!?](?=\s|$)|[\n\u3002]")
_CLAUSE = re.compile(
    r"[.!?](?=\s|$)|[,;:](?=\s)|[\n\u3002\uff0c]|\s(?=(?:but|because|since|while|whereas|although|so)\s)", re.IGNORECASE
)
_MOST_PLACES, _MOST_WORDS = 200, 1000
"""That name an option, and of a clause: a text with more of them goes round in circles."""
_DENIALS = {"not", "never", "neither", "nor", "none", "cannot", "except", "unlike", "unlikely", "instead", "than"}
_DENIALS |= {"if", "whether", "unless"}
_FAULTS = {"wrong", "incorrect", "false", "mistake", "mistaken"}
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
        self._are_numbers = all(map(_PLAIN_NUMBER.fullmatch, options))
        self._most_words = max(map(len, ways), default=0)
        self._most = 2 * max(map(len, options), default=0) + 100

    def named(self, text: str) -> int | None:
        """The number of the one that a text names."""
        if (whole := self._whole(text)) is not None:
            return whole
        if self._are_numbers:
            text = _CALCULATION.sub(lambda found: found[0] if self._terms(found[0]) in self._ways else " ", text)
        if not any({*way} & _FAULTS for way in self._ways):  # of "true" and "false", "That is false." names one
            text = _TAKEN_BACK.sub(" ", text)
        for kind in (
            self._behind(_FINAL, text),
            self._answers(text),
            self._alone(text.strip()),
            self._behind(_CALLED, text),
            self._all(text),
        ):
            if numbers := {*islice(kind, _MOST_PLACES)}:
                return numbers.pop() if len(numbers) == 1 else None
        return None

    def _whole(self, text: str) -> int | None:
        """The option whose words, label, or both a text is."""
        terms, label = self._terms(text), self._label(text)
        if terms and terms in self._ways:
            return self._ways.index(terms)
        return label[0] if label and self._terms(text[label[1] :]) in ([], self._ways[label[0]]) else None

    def _answers(self, text: str) -> Iterator[int]:
        yield from self._behind(_ANSWER, text)
        for found in _found(_CLOSING, text):
            said = _SENTENCE_END.split(text[found.end() : found.end() + self._most], maxsplit=1)[0]
            if (closing := self._whole(said)) is not None:
                yield closing
        for found in _found(_CORRECT, text):
            before = self._clause_before(text, found.start())
            if not _is_doubted(terms := self._terms(before)):
                label = _LABEL_AT_END.search(before)
                ends = [i for i, way in enumerate(self._ways) if way and terms[-len(way) :] == way]
                number = self._labelled(label[1]) if label else None
                yield from [max(ends, key=self._length)] if ends else [] if number is None else [number]

    def _behind(self, pattern: re.Pattern[str], text: str) -> Iterator[int]:
        for found in _found(pattern, text):
            if not _is_doubted(self._terms(self._clause_before(text, found.start()))):
                yield from self._begun(text[found.end() : found.end() + self._most])

    def _clause_before(self, text: str, end: int) -> str:
        return _CLAUSE.split(text[max(0, end - self._most) : end])[-1]

    def _alone(self, text: str) -> Iterator[int]:
        """What the last paragraph is, and what the first clause is, but for a question and a list of the options."""
        if (last := self._whole(text[text.rfind("\n\n") + 1 :])) is not None:
            yield last
        labels = [self._label(line) for line in text.split("\n", 2)[:2]]
        end = _CLAUSE.search(text)
        if [label and label[0] for label in labels] == [0, 1] or (end and end[0] == "?"):
            return
        if labels[0] or not end or self._terms(text[: end.start()]) in self._ways:
            yield from self._begun(text[: self._most])

    def _begun(self, text: str) -> Iterator[int]:
        """The option that a text begins with; and another that is joined to it, as in "B or C" and "B) Paris"."""
        if label := self._label(text):
            number, end = label
            rest, own = self._terms(text[end:]), self._ways[number]
            if text.startswith(",", end) or not _is_denied(rest, 0, len(own) if rest[: len(own)] == own else 0):
                yield number
            beside = self._terms(next(filter(self._terms, _CLAUSE.split(text[end:].split("\n", 1)[0])), ""))
            if beside and beside in self._ways:
                yield self._ways.index(beside)
            joined = _JOINED.match(text, end)
            if joined and (other := self._label(text[joined.end() :])):
                yield other[0]
            return
        terms = self._terms(text)
        if (first := self._first(terms)) is not None:
            end = self._length(first)
            if not _is_denied(terms, 0, end):
                yield first
            if (joint := self._joined(terms[end:])) is not None:
                yield joint

    def _all(self, text: str) -> Iterator[int]:
        """All that stand in the text and are not denied; of two that begin at the same word, the longer one."""
        for clause in _CLAUSE.split(text):
            terms, at = self._terms(clause)[:_MOST_WORDS], 0
            while at < len(terms):
                number = self._first(terms[at : at + self._most_words])
                end = at + (1 if number is None else self._length(number))
                is_of_a_noun = terms[at:end] == ["no"] and 0 < at < len(terms) - 1  # "I have no idea."
                if number is not None and not is_of_a_noun and not _is_denied(terms, at, end):
                    yield number
                at = end

    def _first(self, terms: list[str]) -> int | None:
        """The longest with whose words these begin."""
        first = [i for i, way in enumerate(self._ways) if way and terms[: len(way)] == way]
        return max(first, key=self._length) if first else None

    def _joined(self, rest: list[str]) -> int | None:
        """The next of several: of "or blue", and "blue and red"."""
        if rest[:1] in (["or"], ["and"]):
            return self._first(rest[1:])
        other = self._first(rest)
        return other if other is not None and rest[self._length(other) :][:1] in (["or"], ["and"]) else None

    def _length(self, number: int) -> int:
        return len(self._ways[number])

    def _label(self, text: str) -> tuple[int, int] | None:
        """The option with whose label a text begins, and where the label ends."""
        found = _LABEL.match(text)
        number = self._labelled(found[1]) if found else None
        return (number, found.end()) if found and number is not None else None

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


def _found(pattern: re.Pattern[str], text: str) -> Iterator[re.Match[str]]:
    return islice(pattern.finditer(text), _MOST_PLACES)


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
    return _HEADING.sub(r"\1:", _EMPHASIS.sub("", _NOT.sub(" not", text)))


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
