r"""The number that a written answer comes to.

It is the one behind the last `####`, as in GSM8K (Cobbe et al. 2021, arXiv 2110.14168); else that in the last
`\boxed{}`, as in MATH (Hendrycks et al. 2021, arXiv 2103.03874); else the one of "the answer is 42." or "Answer: 42";
else the last one. Where that is a root, a multiple of pi, a ratio or a time of day, the answer comes to no number.
"""

import re
import unicodedata
from collections import deque
from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from typing import NamedTuple

_MARK = "####"
_MAX_CHARS = 400
"""A longer run of digits is no number that an answer comes to, and would take long to compute with."""


class Amount(NamedTuple):
    """A number in a text, and whether it is given in percent."""

    value: Fraction
    is_percent: bool


def amount_in(text: str) -> Amount | None:
    """The number that a text comes to; None without one, or if that one cannot be read."""
    text = _plain(text)
    _, mark, behind = text.rpartition(_MARK)
    if mark and (first := _NUMBER.search(behind)):
        return _amount(first)
    boxed = _BOXED.findall(text)
    found = _last(boxed[-1] if boxed else text)
    settled = None if boxed else _last(text, _SETTLED)
    if settled:
        denied, corrected = _DENIED.match(text, settled.end()), _CORRECTED.search(text, settled.end())
        if denied and not _NUMBER.search(text, denied.end()):
            return None
        if not denied and not (corrected and _SAID.search(text[corrected.end() :])):
            found = _NUMBER.match(text, settled.end())
    return _amount(found) if found else None


# What is written in several ways is brought to one. The order counts.
_VULGAR = "\u00bc-\u00be\u2150-\u215e"
_INSIDE = r"\{((?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*)\}"
_REWRITTEN: tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...] = (
    (r"\u207b?[\u2070\u00b9\u00b2\u00b3\u2074-\u2079]+", lambda found: f"^{unicodedata.normalize('NFKC', found[0])}"),
    (rf"(?<=\d)\s?(?=[{_VULGAR}])", " "),  # 3½
    (rf"[{_VULGAR}\uff01-\uff5e]", lambda found: unicodedata.normalize("NFKC", found[0])),
    ("\u2044", "/"),
    # An en dash is a minus only where nothing before it makes it a range.
    (r"\u2212|(?<![\w)\]%])(?<![\d)\]%]\s)\u2013(?=[$€£¥₹]?[\d.])", "-"),
    (r"\\([$%])", r"\1"),
    (r"\{,\}", ","),
    (r"\\!|\\(?:left|right)(?![a-z])", ""),
    (r"\\[,;: ]|~", " "),
    (r"\\(?:text|textbf|mathrm|mathbf|mbox)\s?\{([^{}]*)\}", r" \1"),
    (r"\\[dtc]?frac\s*(?:\{([^{}]*)\}|(\d))\s*(?:\{([^{}]*)\}|(\d))", r"\\frac{\1\2}{\3\4}"),
    (r"(?<=\d)\s?\\frac\{(\d+)\}\{(\d+)\}", r" \1/\2"),
)
_REWRITES = [(re.compile(pattern), replacement) for pattern, replacement in _REWRITTEN]


def _plain(text: str) -> str:
    for pattern, replacement in _REWRITES:
        text = pattern.sub(replacement, text)
    return text


_SEPARATORS = r"[,'_ \u00a0\u202f]"
# 1,000 and 1 000; 1,00,000 as in India; or any digits. Bounded, as each place of a long list may begin a number.
_DIGITS = rf"(?:\d{{1,3}}(?:{_SEPARATORS}\d{{3}}){{1,30}}(?!\d)|\d{{1,2}}(?:,\d{{2}}){{1,5}},\d{{3}}(?!\d)|\d+)"
_DECIMAL = rf"{_DIGITS}(?:\.\d+)?|\.\d+"
_POWER = r"\s?\^\s?\{?"
_OVER = r"\s?/\s?(\d+)(?!\d|[/.]\d)"
_TIMES_TEN = rf"\s?(?:[x×*·]|\\times|\\cdot)\s?10{_POWER}"
_THOUSANDS = {"thousand": 1, "million": 2, "billion": 3, "trillion": 4}


class _Form(NamedTuple):
    """A way to write a number without its sign, and what its groups come to."""

    pattern: str
    value: Callable[..., Fraction] | None
    """None: such a number is not read."""


def _decimal(digits: str, exponent: str = "0") -> Fraction:
    return Fraction(Decimal(re.sub(_SEPARATORS, "", digits) + "e" + exponent))


# The first that fits is taken.
_FORMS = {
    "fraction": _Form(
        rf"\\frac\{{\s?(-?)({_DECIMAL})\s?\}}\{{\s?(-?)({_DECIMAL})\s?\}}",
        lambda sign, top, other, bottom: _decimal(top) / _decimal(bottom) * (1 if sign == other else -1),
    ),
    "expression": _Form(
        rf"(?:{_DECIMAL})?\s?(?:\\(?:sqrt(?:\[[^\][]*\])?|frac)(?:\s?{_INSIDE})*|√\s?\(?\d*|\\pi(?![a-z])|π)(?:\s?/\s?\d+)?",
        None,
    ),
    "ratio": _Form(r"\d+(?::\d+)+", None),
    "hexadecimal": _Form(r"0[xX]([\da-fA-F]+)\b", lambda digits: Fraction(int(digits, 16))),
    "dotted": _Form(
        r"(\d{1,3}(?:\.\d{3})+,\d+|\d{1,3}(?:\.\d{3}){2,})(?![\d,]|\.\d)",
        lambda digits: _decimal(digits.replace(".", "").replace(",", ".")),
    ),
    "mixed": _Form(rf"(\d+)[ ](\d+){_OVER}", lambda whole, top, bottom: int(whole) + Fraction(int(top), int(bottom))),
    "scientific": _Form(rf"({_DECIMAL})(?:[eE]|{_TIMES_TEN})([-+]?\d{{1,3}})(?!\d)\}}?", _decimal),
    "power": _Form(rf"({_DECIMAL}){_POWER}(-?\d{{1,2}})(?!\d)\}}?", lambda base, power: _decimal(base) ** int(power)),
    "over": _Form(rf"(?<!/)({_DECIMAL}){_OVER}", lambda top, bottom: _decimal(top) / int(bottom)),
    "words": _Form(
        rf"({_DECIMAL})\s({'|'.join(_THOUSANDS)})\b", lambda digits, word: _decimal(digits) * 1000 ** _THOUSANDS[word]
    ),
    "decimal": _Form(rf"({_DECIMAL})", _decimal),
}
_NUMBER = re.compile(
    # Neither within a word or a number, nor an exponent or an index.
    r"(?=[-+$€£¥₹\d.\\√π])(?<![A-Za-z\d_.^])(?<!\^[-+{])(?<!\^\{-)(?<!_\{)"
    r"(?P<sign>(?<![)\]%])[-+](?=[$€£¥₹]?[\d.\\]))?(?:[$€£¥₹]\s?(?P<inner>-)?)?(?=[\d.\\√π])"
    rf"(?:{'|'.join(f'(?P<{name}>{form.pattern})' for name, form in _FORMS.items())})"
    r"(?P<percent>\s?%|\s(?:percent|per cent)\b)?"
)
_READERS = {name: re.compile(form.pattern) for name, form in _FORMS.items()}

_BOXED = re.compile(rf"\\(?:boxed|fbox)\s?{_INSIDE}")
# A number, with a unit of one or two words, that ends the clause. "The answer is 3 times 14" settles nothing.
_SETTLED = re.compile(
    r"\banswer(?:\s+is|\s*[*_]*:)[\s*_$:(\\\[]*"
    rf"(?={_NUMBER.pattern}(?:\s[^\W\d]+){{0,2}}[\s*_$)\\\]]*(?:$|\n|\(|[.!](?!\d)|[,;](?!\s*(?:(?:or|and)\s+)?[-$€£¥₹]?\d)))",
    re.IGNORECASE,
)
# What takes a settled answer back begins a sentence or a clause: "I hope I made no mistake." takes nothing back. What
# denies it stands right behind it: "Many say 43, but that is wrong." is of another number.
_BEGINS = r"(?:[.!?;,:(\n\u2014]|\s-)[\s*_]*+(?:(?:but|no|oh|hmm|oops)\W+){0,2}"
_DENIED = re.compile(
    rf"(?:[^.!?\n]|\.(?=\d))*{_BEGINS}(?:that|this|it)(?: is| was|['\u2019]s)"
    r" (?:wrong|false|incorrect|a mistake|not (?:right|true|correct))"
    r"(?=\s*(?:$|[.,;:!\n\u2014]))",
    re.IGNORECASE,
)
_NOT = re.compile(r"\bnot $", re.IGNORECASE)
_CORRECTED = re.compile(
    rf"{_BEGINS}(?:wait|actually|correction|sorry|oops|instead|scratch that|(?:or )?rather(?! than)|no(?=\W)"
    r"|I (?:have )?(?:made|see) an? (?:mistake|error))\b",
    re.IGNORECASE,
)
# Behind it, another number has to be said, and not only to stand there: "Actually, it took 3 steps."
_SAID = re.compile(
    rf"(?:\b(?:is|are|be|was|equals?|makes?|get|gives?|meant?|so|answer)|['\u2019]s|[=\u2248:]|\A)[\s*_$:,(\\\[]*(?={_NUMBER.pattern})",
    re.IGNORECASE,
)


def _last(text: str, pattern: re.Pattern[str] = _NUMBER) -> re.Match[str] | None:
    """But for a number that is denied: "not 42"."""
    said = (
        found for found in pattern.finditer(text) if not _NOT.search(text[max(0, found.start() - 5) : found.start()])
    )
    return next(iter(deque(said, maxlen=1)), None)


def _amount(found: re.Match[str]) -> Amount | None:
    name = next(name for name in _FORMS if found[name])
    read = _FORMS[name].value
    if read is None or len(found[0]) > _MAX_CHARS:
        return None
    parts = _READERS[name].match(found.string, found.start(name))
    try:
        value = read(*parts.groups()) if parts else None
    except (ZeroDivisionError, InvalidOperation):
        return None
    if value is None:
        return None
    is_negative = found["sign"] == "-" or bool(found["inner"])
    return Amount(-value if is_negative else value, bool(found["percent"]))
