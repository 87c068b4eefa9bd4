"""How what a judge says is read: the one verdict in its JSON, else a place that says what it settles on.

Such a place is behind a word ("Grade: 3", "The better answer is B") or alone in a line; the last one counts. Without
one, a grade is taken only if the reply names no other. What may be meant in two ways is no verdict: that is counted,
while a verdict that was misread would pass for one.
"""

import re
from collections.abc import Sequence
from typing import Any

from sft.scoring.json_equal import all_values_in
from sft.thoughts import answer_in, served_text

_NUMBER = r"(?<![\w.])-?\d++(?:\.\d+)?+(?![\w.]*\d)"
_RANGE = re.compile(
    rf"{_NUMBER}(?:[-–—]| (?:to|through|or) ){_NUMBER}|\bbetween {_NUMBER} and {_NUMBER}", re.IGNORECASE
)
_FRACTION = re.compile(rf"({_NUMBER})\s*(?:/|\bout of\b)\s*({_NUMBER})", re.IGNORECASE)
_FLAT_JSON = re.compile(r"\{[^{}]*\}")
_GRADE_WORDS = "grade|score|rating|label|verdict"
# "A" is also an article: "Verdict: A fine pair".
_PAIR = r"(?:\bA\b(?! +\w)|\bB\b|\b[Tt](?:ie|IE)\b)"
_PAIR_WORDS = "(?:better|best|preferred)(?: answer| one)?|winner|verdict|preference"
_IS_BETTER = re.compile(
    r"(?:^|\n|[.!?:;,](?=\s))[^\S\n]*+(?:[Aa]nswer )?([AB]) (?:is (?:clearly |much |slightly |the )?better|wins)\b"
)


def graded(text: str, low: int, high: int) -> tuple[float | None, str]:
    """How far above the worst the grade in a reply is, and its reason; None with what is wrong.

    "2/5" and "2 out of 5" are grades of a scale that ends at 5, and none of any other.
    """
    text, content, given = _given(text, "grade", _NUMBER, _GRADE_WORDS)
    if isinstance(given, str):
        given = _number_in(given, high)
    if isinstance(given, bool) or not isinstance(given, int | float):
        return None, f"the judge gives no grade: {text[-200:]!r}"
    if not low <= given <= high:
        return None, f"the judge's grade {str(given)[:20]} is not from {low} to {high}"
    return float(given) - low, _reason(content, text)


def labelled(text: str, labels: Sequence[str]) -> tuple[float | None, str]:
    """The place of the label in a reply, and its reason; None with what is wrong."""
    # The longest first, since one may be part of another: "right" of "partly right".
    longest = sorted(labels, key=len, reverse=True)
    one = rf"(?<!\w)(?i:{'|'.join(map(re.escape, longest))})(?!\w)"
    text, content, given = _given(text, "grade", one, _GRADE_WORDS)
    found = None
    if isinstance(given, str):
        found = _settled(given, one, _GRADE_WORDS)
        found = found or _only(re.findall(rf"(?:not |n't )?{one}", given, re.IGNORECASE))
    names = [name.casefold() for name in labels]
    if found is None or found.casefold() not in names:
        return None, f"the judge gives none of the labels {', '.join(labels)}: {text[-200:]!r}"
    return float(names.index(found.casefold())), _reason(content, text)


def preferred(text: str) -> tuple[str | None, str]:
    """`A`, `B` or `tie`, and the reason; None with what is wrong."""
    text, content, given = _given(text, "better", _PAIR, _PAIR_WORDS)
    found = None
    if isinstance(given, str):
        found = _settled(given, _PAIR, _PAIR_WORDS) or _only(_IS_BETTER.findall(given))
    if found is None:
        return None, f"the judge prefers nothing: {text[-200:]!r}"
    return found if found in ("A", "B") else "tie", _reason(content, text)


def _given(text: str, name: str, value: str, words: str) -> tuple[str, Any, Any]:
    """The reply behind its thought, its JSON, and the field of this name; where there is none, the reply.

    A judge may quote the JSON of an answer that tries to talk it round: where another verdict stands in other JSON, or
    behind it, nothing is given.
    """
    text = answer_in(served_text(text)).answer
    found = [one for one in all_values_in(text, fenced_alone=False) if isinstance(one, dict) and name in one]
    if not found:
        return text, None, text
    said = [str(one[name]) for one in found]
    named = [*re.finditer(rf'(?<!\\)"{name}"\s*:', text)]  # of which some may stand in what is no JSON
    if named:
        said += filter(None, [_settled(_FLAT_JSON.sub("", text[named[0].start() :].partition("}")[2]), value, words)])
    verdicts = {(_settled(one, value, words) or one).casefold() for one in said}
    content = found[0]
    return text, content, content[name] if len(verdicts) == 1 and len(named) == len(found) else None


def _number_in(text: str, high: int) -> float | None:
    """The number that a text settles on."""
    of_scale = [grade for grade, most in _FRACTION.findall(text) if float(most) == high]
    plain = _FRACTION.sub(lambda found: found[1] if float(found[2]) == high else "", _RANGE.sub("", text))
    found = _settled(plain, _NUMBER, _GRADE_WORDS) or _only(of_scale or re.findall(_NUMBER, plain))
    return None if found is None else float(found)


def _settled(text: str, value: str, words: str) -> str | None:
    """The last value that stands alone in a line, in double brackets, or behind one of the words."""
    pattern = (
        rf"(?:\b(?i:{words})\b[\"'*_`\s()]*(?:[:=]|\b(?i:is)\b)[\"'*_`\s(\[]*(?:(?i:answer|an?)\s)?"
        rf"|^[^\w\n-]*(?:(?i:answer)\s)?(?={value}[^\w\n]*$)|\[\[)(?P<value>{value})"
    )
    return next((found["value"] for found in reversed([*re.finditer(pattern, text, re.MULTILINE)])), None)


def _only(found: Sequence[str]) -> str | None:
    return found[0] if len({one.casefold() for one in found}) == 1 else None


def _reason(content: Any, text: str) -> str:
    reason = content.get("reason") if isinstance(content, dict) else None
    return reason if isinstance(reason, str) else text
