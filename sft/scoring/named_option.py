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
from itertools import islice
from typing import Literal

from sft.scoring.scorer import same_text
from sft.scoring.words import places, words_of

Labels = Literal["letters", "numbers", "none"]

# A number as a whole, with its minus, and with letters behind it: -3, 2.5, 1/2, 5km. But 3-5 are two.
_NUMBER = re.compile(r"(?:(?<![\w)\]])[-\u2212])?(?:(?<![\w.])\.)?(?<![^\W_])\d+(?:[.,:/]\d+)*[a-z]*")
_PLAIN_NUMBER = re.compile(r"\W{0,3}\d+(?:[.,/]\d+)*(?:\s?[^\W\d]+|\s?%)?\W{0,2}")
_OPERATOR = (
    r"\s?(?:[+*/\u00d7\u00b7\u00f7^\u2212]|-|\\(?:times|cdot|div)|x\b|times|plus|minus|(?:multiplied|divided) by)\s?"
)
_OPERAND = r"[(\[$€£]*[-\u2212]?(?<![\d.,])\d+(?:[.,/]\d+)*+%?[)\]]*"
_COMES_TO = r"(?:\s?(?:=|\u2248|\\approx)\s?|\s(?:is|equals|makes|gives)\s)"
_COMPUTED = re.compile(rf"(?<![\w.,])(?:{_OPERAND}(?:{_OPERATOR}{_OPERAND})++{_COMES_TO}?|\d+/\d+\s?=)")
_COMPARED = re.compile(rf"{_OPERAND}\s?(?:[<>\u2264\u2265\u2260]|\\(?:neq?|leq?|geq?)\b)=?\s?{_OPERAND}")
_AROUND = ".,;:!?\"'`()[]{}*_\u201c\u201d\u2018\u2019"

_UNWRAPPED = re.compile(r"\\(?:text|textbf|mathbf|mathrm)\s?\{([^{}]*)\}")
# A star between numbers is a sign of times.
_EMPHASIS = re.compile(r"(?!(?<=\d\s)\*\s?[-\d($\\])(?:(?<!\w)[*_`]+|[*_`]+(?!\w))|</?(?:b|i|em|strong)>")
_NOT = re.compile(r"n['\u2019]t\b|\b(?:anything|everything|all) but\b", re.IGNORECASE)

_BE = r"(?:is|was|must be|should be|would be|has to be)(?:\s+(?:clearly|definitely|therefore|thus))?"
_ARROW = r"(?:[\u2192\u21d2]|[-=]>)"
_IS = rf"(?:\s+{_BE}|(?=[\"']?\s*(?:[:\uff1a]|{_ARROW}))|(?=\s-\s))"
# A heading asks for what stands below it.
_HEADING = re.compile(
    r"^([ \t#]*(?:(?:the|my) )?(?:(?:final|correct|right|best) )?(?:answer|conclusion))[ \t]*(?=\n)",
    re.IGNORECASE | re.MULTILINE,
)
_FINAL = re.compile(rf"\\(?:boxed|fbox)\s?\{{|<answer>|\bfinal answer(?:{_IS}|(?=\s\())", re.IGNORECASE)
_ANSWER = re.compile(
    rf"\b(?:answer(?: to (?:the|this|your) question)?){_IS}"
    rf"|\b(?:correct|right|best) (?:option|choice|one|letter|fit|match){_IS}"
    r"|\b(?:option|choice|solution|conclusion|response|pick|guess|correct)(?=\s*:)|\bmy (?:choice|pick|guess) is\b"
    r"|\b(?:that|this|which) (?:only )?leaves(?: only| us with)?\b"
    r"|答案(?:应该)?[是为]?"
    r"|\b(?:I|I would|I['\u2019]d|I will|I['\u2019]ll) (?:choose|pick|select|say|guess|go with)\b"
    r"|\bI(?: a|['\u2019])m going with\b"
    r"|\b(?:so|therefore|thus|hence),? it(?: is|['\u2019]s| must be)\b",
    re.IGNORECASE,
)
_CORRECT = re.compile(
    r"\s(?:is|must be) (?:the )?(?:only |most )?(?:correct|right|best|answer)\b(?! to\b)"
    r"|\s(?:fits|applies|works)(?: the)?(?: best)?(?=\s*[.!]?\s*(?:$|\n))",
    re.IGNORECASE,
)
_CALLED = re.compile(r"\b(?:option|choice|(?:it|this|that)(?: is| must be| would be|['\u2019]s))(?=\s)", re.IGNORECASE)
_CLOSING = re.compile(
    r"(?:^|(?<=[.!?\n\u3002]))[^\S\n]*+(?:so|therefore|thus|hence|consequently|accordingly|in conclusion|overall"
    r"|by elimination|probably|(?:most )?likely)\b[,:]?"
    rf"|,\s(?:so|therefore|thus|hence)\b[,:]?|(?:=\s?\S{{1,20}}\s|^){_ARROW}",
    re.IGNORECASE | re.MULTILINE,
)
_NOT_BUT = re.compile(r"\s*not \S+(?: \S+){0,7}? but (?:rather )?", re.IGNORECASE)
_SENTENCE_END = re.compile(r"[.!?](?=\s|$)|[\n\u3002]")
_TAKEN_BACK = re.compile(
    r"(?:(?<=[.!?,;\n])|(?<=[.!?,;]\s))(?:(?:but|no|wait|sorry|actually|however)\W+){0,3}(?:"
    r"(?:that|this|which)(?: is| was|['\u2019]s)(?: clearly| actually)?"
    r" (?:false|wrong|incorrect|untrue|not (?:so|true|right|correct|the answer))(?=\s*(?:$|[.,;:!\n]))"
    r"|wait, no\b|no, wait\b|correction(?=\s*:)"
    r"|(?:wait|actually|sorry)\b\W*(?=(?:it|that|the (?:\w+ )?answer)(?: is|['\u2019]s|\s*:)\s))",
    re.IGNORECASE,
)

_KIND = r"(?:(?:option|choice|answer|letter)\s+)?"
# What stands behind a label tells it from a word: "A cat" begins with none.
_LABEL = re.compile(
    rf"(?:[\s:\uff1a\u2022#>\"']|{_ARROW})*+(?:-\s)?[\s(\[\"'\u201c\u2018$\\]*{_KIND}[(\[]?([a-z]|\d{{1,2}})(?!\w|['\u2019]\w)(?:\\?[)\]}}]"
    r"|[\"'\u201d\u2019$]*(?=\s*(?:$|[\n(<}}\u2013\u2014\u3002\uff0c]|[.:,;!](?!\S)|-+\s|/\s?[a-z\d]\b|(?:or|and|because|since)\b)))",
    re.IGNORECASE | re.ASCII,
)
_LABEL_AT_END = re.compile(r"(?:^|[\s(\[])([A-Z]|\d{1,2})[)\]]?$", re.ASCII)
_JOINED = re.compile(r"\s*(?:,?\s*(?:or|and)\b|[,/])", re.IGNORECASE)
_LISTED = re.compile(rf"(?:^\W*|[.;]\s+){_KIND}\(?([a-z]|\d)[).:]\s", re.IGNORECASE | re.MULTILINE)

_CLAUSE = re.compile(
    r"[.!?](?=\s|$)|[,;:](?=\s)|[\n\u3002\uff0c]|\s(?=(?:but|because|since|while|whereas|although|so)\s)", re.IGNORECASE
)
_MOST_PLACES = 200
"""That say the answer: a text with more of them goes round in circles."""
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
        self._most = 2 * max(map(len, options), default=0) + 100

    def named(self, text: str) -> int | None:
        """The number of the one that a text names."""
        told = self._terms(text)
        if told and told in self._ways:
            return self._ways.index(told)
        text = self._upheld(self._worked_out(text) if self._are_numbers else text)
        for named in (self._final, self._answers, self._begun, self._only):
            if numbers := {*named(text)}:
                return numbers.pop() if len(numbers) == 1 else None
        return None

    def _worked_out(self, text: str) -> str:
        """Without what is computed, but for an option: of "12 * 3 = 36", the value; of "12 < 36", nothing."""
        computed = _COMPUTED.sub(lambda found: found[0] if self._terms(found[0]) in self._ways else " ", text)
        return _COMPARED.sub(" ", computed)

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
        for found in islice(_CLOSING.finditer(text), _MOST_PLACES):
            said = _SENTENCE_END.split(text[found.end() : found.end() + self._most], maxsplit=1)[0]
            if (closing := self._alone(said)) is not None:
                yield closing
        for found in islice(_CORRECT.finditer(text), _MOST_PLACES):
            before = self._clause_before(text, found.start())
            if not _is_doubted(terms := self._terms(before)):
                label = _LABEL_AT_END.search(before)
                ends = [i for i, way in enumerate(self._ways) if way and terms[-len(way) :] == way]
                number = self._labelled(label[1]) if label else None
                yield from [max(ends, key=self._length)] if ends else [] if number is None else [number]

    def _behind(self, pattern: re.Pattern[str], text: str) -> Iterator[int]:
        for found in islice(pattern.finditer(text), _MOST_PLACES):
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
        if listed[:2] not in (["A", "B"], ["1", "2"]) and not self._is_about_several(text):
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
        for clause in filter(str.strip, _CLAUSE.split(text)):
            terms = self._terms(clause)
            clauses += [(len(told), len(told) + len(terms))] * len(terms)
            told += terms
        covered: set[int] = set()
        for number in sorted(range(len(self._ways)), key=self._length, reverse=True):
            for at in places(self._ways[number], told)[:_MOST_PLACES]:
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

    def _is_about_several(self, text: str) -> bool:
        """Whether a text tells something of the option that it begins with, and then of another one."""
        sentences = _SENTENCE_END.split(text, maxsplit=_MOST_PLACES)
        clause = self._terms(_CLAUSE.split(sentences[0])[0])
        number = self._first(clause)
        if number is None or len(clause) == self._length(number):
            return False
        end = self._length(number)
        if clause[end] in _VERBS and any(places(way, clause[end:]) for way in self._ways):
            return True
        for terms in map(self._terms, sentences[1:]):
            other = self._first(terms)
            if other not in (None, number) and not _is_denied(terms, 0, self._length(other)):
                return True
        return False

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
