"""Whether the number that an answer comes to is that of a reference.

It is the one behind the last `####`, as in GSM8K (Cobbe et al. 2021, arXiv 2110.14168), or else the last one.
"""

import re
import unicodedata
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from typing import Annotated, ClassVar, NamedTuple

from pydantic import Field

from sft.scoring.metric import Metric
from sft.scoring.scorer import JUDGED, Answer, Question, Settings, Verdict, failure

_MARK = "####"
_MAX_CHARS = 400
"""A longer run of digits is no number that an answer comes to, and would take long to compute with."""
_SEPARATORS = r"[,'_ \u00a0\u202f]"
# 1,000 and 1 000; 1,00,000 as in India; or any digits.
_DIGITS = rf"(?:\d{{1,3}}(?:{_SEPARATORS}\d{{3}})+(?!\d)|\d{{1,2}}(?:,\d{{2}})+,\d{{3}}(?!\d)|\d+)"
_POWER = r"\s?\^\s?\{?"
_NUMBER = re.compile(
    rf"""
    (?<![A-Za-z\d_.^]) (?<!\^[-+\u2212{{]) (?<!\^{{-) (?P<date>(?<=/))?
    (?P<sign>(?<![)\]%])[-+\u2212](?=[$€£¥]?[\d.\\]))? (?:[$€£¥]\s?(?P<inner>[-\u2212])?)?
    (?: \\d?frac\{{(?P<top>\d+)\}}\{{(?P<bottom>\d+)\}}
      | 0[xX](?P<hexadecimal>[\da-fA-F]+)\b
      | (?P<dotted>\d{{1,3}}(?:\.\d{{3}})+,\d+|\d{{1,3}}(?:\.\d{{3}}){{2,}})(?![\d,]|\.\d)
      | (?P<whole>\d+)[ ](?P<part>\d+)\s?/\s?(?P<of>\d+)(?!\d|[/.]\d)
      | (?P<number>{_DIGITS}(?:\.\d+)?|\.\d+) (?:[eE](?P<exponent>[-+]?\d{{1,3}})(?!\d))?
        (?: {_POWER}(?P<power>-?\d{{1,2}})(?!\d)\}}?
          | \s?(?:[x×*·]|\\times|\\cdot)\s?10{_POWER}(?P<ten>-?\d{{1,3}})(?!\d)\}}? )?
        (?(date)|(?:\s?/\s?(?P<over>\d+)(?!\d|[/.]\d))?)
    )
    (?P<percent>\s?\\?%)?
    """,
    re.VERBOSE,
)
_RAISED = re.compile("[\u2070\u00b9\u00b2\u00b3\u2074-\u2079]+")


class Amount(NamedTuple):
    """A number in a text, and whether it is given in percent."""

    value: Fraction
    is_percent: bool


class Number(Settings):
    """Whether the last number of the answer equals that of a reference: 1,000 is 1000.0 and 1e3; $5 is 5 apples."""

    metrics: ClassVar[Mapping[str, Metric]] = {
        "number": Metric("right number", "answers that come to the right number", "higher", JUDGED, is_share=True)
    }

    tolerance: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """The largest difference that still counts as equal, as a share of the reference."""

    def judge(self, answer: Answer, question: Question) -> Verdict:
        """1 or 0."""
        wanted = [amount for reference in question.references if (amount := amount_in(reference))]
        if not wanted:
            return failure("no number in the references")
        given = amount_in(answer.text)
        if given is None:
            return Verdict({"number": 0.0}, "no number in the answer")
        is_right = any(self._are_equal(given, amount) for amount in wanted)
        return Verdict({"number": float(is_right)}, "" if is_right else f"the answer comes to {_shown(given)}")

    def _are_equal(self, given: Amount, wanted: Amount) -> bool:
        """50 % is both 50 and 0.5, unless both are in percent."""
        values = {given.value}
        if given.is_percent != wanted.is_percent:
            values.add(given.value / 100 if given.is_percent else given.value * 100)
        most = abs(wanted.value) * Fraction(self.tolerance)
        return any(abs(value - wanted.value) <= most for value in values)


def amount_in(text: str) -> Amount | None:
    """The number that a text comes to."""
    _, mark, behind = text.rpartition(_MARK)
    if mark and (found := _amounts(behind)):
        return found[0]
    found = _amounts(text)
    return found[-1] if found else None


def _amounts(text: str) -> list[Amount]:
    plain = _RAISED.sub(lambda found: f"^{unicodedata.normalize('NFKC', found[0])}", text)
    return [amount for found in _NUMBER.finditer(plain) if (amount := _amount(found))]


def _amount(found: re.Match[str]) -> Amount | None:
    if len(found[0]) > _MAX_CHARS:
        return None
    try:
        value = _value(found)
    except (ZeroDivisionError, InvalidOperation):
        return None
    is_negative = (found["sign"] or "+") != "+" or bool(found["inner"])
    return Amount(-value if is_negative else value, bool(found["percent"]))


def _value(found: re.Match[str]) -> Fraction:
    """Without its sign."""
    if found["top"]:
        return Fraction(int(found["top"]), int(found["bottom"]))
    if found["hexadecimal"]:
        return Fraction(int(found["hexadecimal"], 16))
    if found["dotted"]:
        return Fraction(Decimal(found["dotted"].replace(".", "").replace(",", ".")))
    if found["whole"]:
        return int(found["whole"]) + Fraction(int(found["part"]), int(found["of"]))
    digits = re.sub(_SEPARATORS, "", found["number"])
    value = Fraction(Decimal(f"{digits}e{found['exponent'] or 0}"))
    value = value ** int(found["power"] or 1) * Fraction(10) ** int(found["ten"] or 0)
    return value / int(found["over"] or 1)


def _shown(amount: Amount) -> str:
    value = float(amount.value) if abs(amount.value) < Fraction(10) ** 300 else amount.value
    return f"{value:g}{'%' if amount.is_percent else ''}" if isinstance(value, float) else "a very large number"
